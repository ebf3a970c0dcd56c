//! Schemas of notes, and the conversions from and to the domain (AUTHZ-06). The types hold personal
//! data and have no `Debug`.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use palisade::{
    crypto::{PersonalDataAccess, RowKey, Sealable, Sealed},
    http::{field_errors::FieldErrors, paging::Paging, text::Text},
    problem::Problem,
    store::{DbError, Listed},
};
use poem_openapi::{
    Object,
    types::{Example, MaybeUndefined},
};
use uuid::Uuid;

use crate::{domain, formats, store::Note};

palisade::api_enum! {
    /// Priority of a note.
    Priority = domain::Priority { Standard, Express }
}
palisade::api_enum! {
    /// State of a note: `draft` → `archived`.
    NoteStatus = domain::NoteStatus { Draft, Archived }
}

/// Item of a note.
#[derive(Object)]
pub(super) struct Item {
    /// Code: 3 to 64 upper-case letters, digits and hyphens.
    code: Text<formats::Code>,
    /// Number of units, 1 to 1000.
    #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
    count: i32,
}

/// Note to create.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct NewNote {
    /// Items of the note, 1 to 50.
    #[oai(validator(min_items = 1, max_items = 50))]
    items: Vec<Item>,
    /// Priority.
    priority: Priority,
    /// Free text on one line, 1 to 500 characters, without control characters.
    remark: Option<Text<formats::Remark>>,
    /// E-mail address, 3 to 254 ASCII characters. Stored in lower case.
    email: Option<Text<formats::Email>>,
    /// Telephone number (ITU-T E.164): `+` and 7 to 15 digits.
    phone: Option<Text<formats::Phone>>,
}

/// Changes to a note. Omitted fields keep their value; `null` clears a field (RFC 7396).
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct NotePatch {
    /// Priority. Cannot be cleared.
    #[oai(skip_serializing_if_is_none)]
    priority: Option<Priority>,
    /// Free text on one line, 1 to 500 characters. `null` clears it.
    #[oai(nullable)]
    remark: MaybeUndefined<Text<formats::Remark>>,
    /// E-mail address, 3 to 254 ASCII characters. `null` clears it.
    #[oai(nullable)]
    email: MaybeUndefined<Text<formats::Email>>,
    /// Telephone number (ITU-T E.164): `+` and 7 to 15 digits. `null` clears it.
    #[oai(nullable)]
    phone: MaybeUndefined<Text<formats::Phone>>,
}

/// A note. The personal fields `email` and `phone` are masked unless a user with the role `auditor`
/// or `admin` reads the note by its id. A masked field is `****` and at most the last four characters of the
/// value.
#[derive(Object)]
#[oai(rename_all = "camelCase", rename = "Note")]
pub(super) struct NoteView {
    /// Note id (UUIDv7, RFC 9562).
    id: Uuid,
    /// State of the note.
    status: NoteStatus,
    /// Items of the note, at most 50.
    #[oai(validator(max_items = 50))]
    items: Vec<Item>,
    /// Priority.
    priority: Priority,
    /// Free text; absent if there is none.
    #[oai(skip_serializing_if_is_none)]
    remark: Option<Text<formats::Remark>>,
    /// Whether this response masks the personal fields.
    masked: bool,
    /// E-mail address in lower case, or its masked form; absent if there is none.
    #[oai(skip_serializing_if_is_none)]
    email: Option<Text<formats::MaybeMasked>>,
    /// Telephone number (ITU-T E.164), or its masked form; absent if there is none.
    #[oai(skip_serializing_if_is_none)]
    phone: Option<Text<formats::MaybeMasked>>,
    /// Subject of the caller that created the note.
    created_by: Text<formats::Subject>,
    /// Time of creation (RFC 3339, UTC).
    created_at: DateTime<Utc>,
    /// Time of the last change (RFC 3339, UTC).
    updated_at: DateTime<Utc>,
}

/// What to search notes by.
#[derive(Object)]
#[oai(example)]
pub(super) struct NoteSearch {
    /// Whole e-mail address, case-insensitive.
    pub(super) email: Text<formats::Email>,
    /// Maximum number of items on the page: 1 to 100, default 20.
    #[oai(default = "palisade::http::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
    pub(super) limit: i64,
    /// `nextCursor` of the previous page. Omit it for the first page.
    #[oai(skip_serializing_if_is_none)]
    pub(super) cursor: Option<Text<formats::Cursor>>,
}

impl Example for NoteSearch {
    fn example() -> Self {
        Self { email: "billing@initech.example".into(), limit: 20, cursor: None }
    }
}

/// One page of notes, newest first.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct NotePage {
    /// Notes of the page, at most 100.
    #[oai(validator(max_items = 100))]
    items: Vec<NoteView>,
    /// Ids of notes of the page whose stored data does not decrypt. They are not in `items`, and
    /// `getNote` fails with 500 for them.
    #[oai(validator(max_items = 100))]
    unreadable: Vec<Uuid>,
    /// Cursor of the next page, to send as `cursor`; `null` on the last page.
    #[oai(nullable)]
    next_cursor: Option<Text<formats::Cursor>>,
}

impl NotePage {
    /// Renders a page, masked for every caller: plain text is read one note at a time.
    pub(super) fn new(mut notes: Vec<Listed<Note>>, paging: &Paging<'_>) -> Result<Self, DbError> {
        let next_cursor = paging.cut(&mut notes, |note| note.position().to_string());
        let (items, unreadable) = Listed::render(&notes, |note| NoteView::new(note, None))?;
        Ok(Self { items, unreadable, next_cursor })
    }
}

/// The new state of a note.
#[derive(Object)]
pub(super) struct ArchivedNote {
    /// Note id (UUIDv7, RFC 9562).
    pub(super) id: Uuid,
    /// State of the note: `archived`.
    pub(super) status: NoteStatus,
}

impl NewNote {
    pub(super) fn into_domain(self) -> Result<domain::NewNote, Problem> {
        let mut errors = FieldErrors::default();
        let item = |item: Item| domain::Item { code: item.code.into(), count: item.count };
        let note = domain::NewNote {
            items: self.items.into_iter().map(item).collect(),
            priority: self.priority.into(),
            remark: errors.parse_optional("/remark", self.remark.as_deref()),
            email: errors.parse_optional("/email", self.email.as_deref()),
            phone: errors.parse_optional("/phone", self.phone.as_deref()),
        };
        errors.finish(Some(note))
    }
}

impl NotePatch {
    pub(super) fn into_domain(self) -> Result<domain::NoteChange, Problem> {
        let mut errors = FieldErrors::default();
        let change = domain::NoteChange {
            priority: self.priority.map(domain::Priority::from),
            remark: parse_change(&mut errors, "/remark", self.remark),
            email: parse_change(&mut errors, "/email", self.email),
            phone: parse_change(&mut errors, "/phone", self.phone),
        };
        errors.finish(Some(change))
    }
}

fn parse_change<F, T: FromStr>(
    errors: &mut FieldErrors,
    pointer: &str,
    field: MaybeUndefined<Text<F>>,
) -> MaybeUndefined<T> {
    match field {
        MaybeUndefined::Undefined => MaybeUndefined::Undefined,
        MaybeUndefined::Null => MaybeUndefined::Null,
        // A field error rejects the whole change, so the fallback is never applied.
        MaybeUndefined::Value(text) => {
            errors.parse(pointer, &text).map_or(MaybeUndefined::Undefined, MaybeUndefined::Value)
        }
    }
}

impl NoteView {
    /// Renders a note: in plain text with access to personal data, else masked.
    pub(super) fn new(note: &Note, access: Option<&PersonalDataAccess>) -> Result<Self, DbError> {
        let item = |item: &domain::Item| Item { code: item.code.as_str().into(), count: item.count };
        Ok(Self {
            id: note.id.uuid(),
            status: note.status.into(),
            items: note.items.iter().map(item).collect(),
            priority: note.priority.into(),
            remark: note.remark.clone().map(Text::from),
            masked: access.is_none(),
            email: render(note.email.as_ref(), &note.key, access)?,
            phone: render(note.phone.as_ref(), &note.key, access)?,
            created_by: note.created_by.clone().into(),
            created_at: note.created_at,
            updated_at: note.updated_at,
        })
    }
}

fn render<T: Sealable>(
    field: Option<&Sealed<T>>,
    key: &RowKey,
    access: Option<&PersonalDataAccess>,
) -> Result<Option<Text<formats::MaybeMasked>>, DbError> {
    Ok(match (field, access) {
        (None, _) => None,
        (Some(field), Some(access)) => Some(field.open(key, access)?.plain(access).into()),
        (Some(field), None) => Some(field.masked(key)?.into()),
    })
}

impl Example for NewNote {
    fn example() -> Self {
        Self {
            items: vec![Item { code: "PAPER-A4".into(), count: 2 }],
            priority: Priority::Standard,
            remark: Some("leave at the door".into()),
            email: Some("billing@initech.example".into()),
            phone: Some("+49 30 1234567".into()),
        }
    }
}

impl Example for NotePatch {
    fn example() -> Self {
        Self {
            priority: Some(Priority::Express),
            remark: MaybeUndefined::Null,
            email: MaybeUndefined::Value("accounts@initech.example".into()),
            phone: MaybeUndefined::Undefined,
        }
    }
}
