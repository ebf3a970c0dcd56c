//! Operations on notes: create, list, get, update, archive, erase.

use std::sync::Arc;

use palisade::{
    authz::Permit,
    http::{
        Context, field_errors::FieldErrors, idempotency::Created, paging::Paging, strict_json::StrictJson, text::Text,
    },
    problem::{Kind, Problem},
    store::{Claim, Position},
    telemetry::{ServiceCounter, event},
};
use poem::Result;
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};

use super::{
    NoteLimits, Tag,
    schema::{ArchivedNote, NewNote, NotePage, NotePatch, NoteSearch, NoteView},
};
use crate::{
    access::actions::{ArchiveNote, CreateNote, EraseNote, GetNote, ListNotes, SearchNotes, UpdateNote},
    domain::{Email, NoteId, NoteStatus},
    formats,
    store::{self, Note, NoteTable, StoredNote},
};

pub(crate) struct Notes {
    pub(crate) context: Arc<Context>,
    pub(crate) limits: NoteLimits,
}

static CREATED: ServiceCounter =
    ServiceCounter::new("notes.created", "Notes that were created, by priority.", "priority");

#[derive(ApiResponse)]
enum Erased {
    /// The note is erased.
    #[oai(status = 204)]
    NoContent,
}

#[OpenApi(tag = "Tag::Notes")]
impl Notes {
    /// Create a note
    ///
    /// Creates a note and stores its personal fields encrypted. This response always masks them.
    /// Fails with 422 for the code `RESERVED` (`reserved`), or for more express drafts than the
    /// service allows (`too_many`).
    #[oai(path = "/v1/notes", method = "post", operation_id = "createNote")]
    async fn create(
        &self,
        permit: &Permit<CreateNote>,
        /// Idempotency key, 1 to 255 visible ASCII characters. Retries with the same key return the
        /// first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<Text<formats::IdempotencyKey>>>,
        body: StrictJson<NewNote>,
    ) -> Result<Created<NoteView>> {
        let request = self.context.idempotent::<CreateNote>(idempotency_key.0, None, &body.canonical);
        let new_note = body.value.into_domain()?;
        let id = NoteId::generate();
        // May wait for the vault that holds the master key, so it precedes taking a connection.
        // An error waits until it is clear that this is no retry.
        let row_key = self.context.database.new_row_key::<NoteTable>(permit, id.uuid()).await;
        let indexes = self.context.database.indexes();
        let mut statements = self.context.database.statements(permit).await?;
        let limit = self.limits.max_express;
        let (express, stored) =
            store::inputs(&mut statements, permit, new_note.priority, limit, request.as_ref()).await?;
        if let Some(outcome) = stored {
            return Ok(Created::replay(outcome)?);
        }
        let subject = permit.principal().subject();
        if express >= limit {
            event::refused_by_service("express_limit_exceeded", subject, &permit.tenant().to_string(), "max_express");
            return Err(Problem::new(Kind::Unprocessable).at("/priority", "too_many").into());
        }
        let now = self.context.clock.now();
        let note = Note::new(id, new_note, row_key?, &indexes, permit.tenant(), subject, now)?;
        // Stored for retries, so it is masked regardless of the caller's roles.
        let created = Created::new(&NoteView::new(&note, None)?, Some(location(id)));
        let keyed = request.as_ref().map(|request| (request, created.stored()));
        store::create(statements, permit, &note, keyed).await?;
        CREATED.increment(note.priority.as_str());
        Ok(created)
    }

    /// List notes
    ///
    /// Lists the notes of the tenant, newest first, with personal fields masked.
    #[oai(path = "/v1/notes", method = "get", operation_id = "listNotes")]
    async fn list(
        &self,
        permit: &Permit<ListNotes>,
        /// Maximum number of items on the page: 1 to 100, default 20.
        #[oai(
            default = "palisade::http::paging::default_limit",
            validator(minimum(value = "1"), maximum(value = "100"))
        )]
        limit: Query<i64>,
        /// `nextCursor` of the previous page. Omit it for the first page.
        cursor: Query<Option<Text<formats::Cursor>>>,
    ) -> Result<Json<NotePage>> {
        let paging = Paging::new(&self.context.mac_key, "notes", permit.tenant(), limit.0);
        let start = paging.open(cursor.0.as_deref())?.unwrap_or_else(Position::start);
        let page = store::page(&self.context.database, permit, start, paging.read_ahead()).await?;
        Ok(Json(NotePage::new(page, &paging)?))
    }

    /// Search notes
    ///
    /// Lists the notes with one e-mail address, newest first, with personal fields masked. Only users
    /// with the role `auditor` or `admin` may search.
    #[oai(path = "/v1/notes/search", method = "post", operation_id = "searchNotes")]
    async fn search(&self, permit: &Permit<SearchNotes>, body: StrictJson<NoteSearch>) -> Result<Json<NotePage>> {
        let NoteSearch { email, limit, cursor } = body.value;
        let mut errors = FieldErrors::default();
        let email: Option<Email> = errors.parse("/email", &email);
        let email = errors.finish(email)?;
        let paging = Paging::new(&self.context.mac_key, "notes", permit.tenant(), limit);
        let start = paging.open(cursor.as_deref())?.unwrap_or_else(Position::start);
        let page = store::search(&self.context.database, permit, start, &email, paging.read_ahead()).await?;
        // A found note confirms the guessed value.
        if !page.is_empty() {
            self.context.personal_data_monitor.record(permit);
        }
        Ok(Json(NotePage::new(page, &paging)?))
    }

    /// Get a note
    ///
    /// Returns the note, or 404 after its erasure. Personal fields are masked unless a user with the
    /// role `auditor` or `admin` calls.
    #[oai(path = "/v1/notes/:id", method = "get", operation_id = "getNote")]
    async fn get(
        &self,
        permit: &Permit<GetNote>,
        /// Note id (UUID).
        id: Path<NoteId>,
    ) -> Result<Json<NoteView>> {
        let note = store::get(&self.context.database, permit, id.0).await?.ok_or_else(not_found)?;
        let access = permit.personal_data_access();
        if access.is_some() {
            self.context.personal_data_monitor.record(permit);
        }
        Ok(Json(NoteView::new(&note, access)?))
    }

    /// Update a note
    ///
    /// Omitted fields keep their value; `null` clears a field (RFC 7396). A body without fields changes
    /// nothing. An archived note fails with 409 (`conflict`). This response always masks the personal
    /// fields.
    #[oai(path = "/v1/notes/:id", method = "patch", operation_id = "updateNote")]
    async fn update(
        &self,
        permit: &Permit<UpdateNote>,
        /// Note id (UUID).
        id: Path<NoteId>,
        body: StrictJson<NotePatch>,
    ) -> Result<Json<NoteView>> {
        let change = body.value.into_domain()?;
        let now = self.context.clock.now();
        let note = store::update(&self.context.database, permit, id.0, &change, now).await?.ok_or_else(not_found)?;
        Ok(Json(NoteView::new(&note, None)?))
    }

    /// Archive a note
    ///
    /// Archives a `draft`. An archived note fails with 409 (`conflict`).
    #[oai(path = "/v1/notes/:id/archive", method = "post", operation_id = "archiveNote")]
    async fn archive(
        &self,
        permit: &Permit<ArchiveNote>,
        /// Idempotency key (required), 1 to 255 visible ASCII characters. Retries with the same key
        /// return the first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Text<formats::IdempotencyKey>>,
        /// Note id (UUID).
        id: Path<NoteId>,
    ) -> Result<Created<ArchivedNote>> {
        let request = self.context.idempotent::<ArchiveNote>(idempotency_key.0, Some(id.0.uuid()), &[]);
        let tx = match self.context.database.write_once(permit, request).await? {
            Claim::New(tx) => tx,
            Claim::Used(outcome) => return Ok(Created::replay(outcome)?),
        };
        let note = tx.lock::<StoredNote>(id.0).await?.ok_or_else(not_found)?;
        let note_permit = permit.for_object(&note)?;
        let next = note.advance(NoteStatus::Archived)?;
        store::archive(&tx, &note_permit, &next, self.context.clock.now()).await?;
        let created = Created::new(&ArchivedNote { id: id.0.uuid(), status: next.to().into() }, None);
        tx.commit(permit, id.0, created.stored()).await?;
        Ok(created)
    }

    /// Erase a note
    ///
    /// Deletes the note's free text and personal fields and destroys its encryption key; this cannot
    /// be undone. A second call returns 404.
    #[oai(path = "/v1/notes/:id", method = "delete", operation_id = "eraseNote")]
    async fn erase(
        &self,
        permit: &Permit<EraseNote>,
        /// Note id (UUID).
        id: Path<NoteId>,
    ) -> Result<Erased> {
        let tx = self.context.database.write(permit).await?;
        let note = tx.lock::<StoredNote>(id.0).await?.ok_or_else(not_found)?;
        let note_permit = permit.for_object(&note)?;
        tx.erase(&note_permit, COLLECTION, self.context.clock.now()).await?;
        tx.commit(permit, id.0).await?;
        Ok(Erased::NoContent)
    }
}

/// The path of the collection, for the `Location` of a note.
const COLLECTION: &str = "/v1/notes";

fn location(id: NoteId) -> String {
    format!("{COLLECTION}/{id}")
}

fn not_found() -> Problem {
    Problem::new(Kind::NotFound)
}
