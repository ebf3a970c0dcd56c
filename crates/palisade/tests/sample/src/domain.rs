//! Notes: types and the table of states.

use palisade::{http::text::TextFormat as _, model::State, text_enum};
use poem_openapi::types::MaybeUndefined;
use serde::{Deserialize, Serialize};

use crate::formats;

palisade::ids! {
    /// A note.
    NoteId,
}

palisade::texts! {
    /// Free text on a note, on one line.
    Remark, 500;
}

palisade::personal_data! {
    /// An e-mail address, in lower case.
    Email, |s| {
        let text = s.to_ascii_lowercase();
        formats::Email::rules().matches(&text).then_some(text)
    };
    /// A telephone number in international form: `+` and digits.
    Phone, |s| {
        let text: String = s.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')')).collect();
        formats::Phone::rules().matches(&text).then_some(text)
    };
}

text_enum! {
    /// Priority of a note.
    Priority {
        /// The usual one.
        Standard = "standard",
        /// Urgent. The settings limit the number of express drafts.
        Express = "express",
    }
}

text_enum! {
    /// State of a note: `draft → archived`.
    NoteStatus {
        /// May be changed.
        Draft = "draft",
        /// Final.
        Archived = "archived",
    }
}

impl State for NoteStatus {
    fn may_become(self, to: Self) -> bool {
        (self, to) == (Self::Draft, Self::Archived)
    }
}

/// An item of a note, as the column `items` holds it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Item {
    /// Code: 3 to 64 upper-case letters, digits and hyphens.
    pub code: String,
    /// Number of units, 1 to 1000.
    pub count: i32,
}

/// A note to create.
#[derive(Clone, Debug)]
pub struct NewNote {
    /// Items, 1 to 50.
    pub items: Vec<Item>,
    /// Priority.
    pub priority: Priority,
    /// Free text.
    pub remark: Option<Remark>,
    /// E-mail address of the person that the note is about.
    pub email: Option<Email>,
    /// Telephone number of the same person.
    pub phone: Option<Phone>,
}

/// A merge patch of a note (RFC 7396).
#[derive(Debug)]
pub struct NoteChange {
    /// New priority. It cannot be cleared.
    pub priority: Option<Priority>,
    /// Free text.
    pub remark: MaybeUndefined<Remark>,
    /// E-mail address.
    pub email: MaybeUndefined<Email>,
    /// Telephone number.
    pub phone: MaybeUndefined<Phone>,
}

impl NoteChange {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { priority, remark, email, phone } = self;
        priority.is_none() && remark.is_undefined() && email.is_undefined() && phone.is_undefined()
    }
}
