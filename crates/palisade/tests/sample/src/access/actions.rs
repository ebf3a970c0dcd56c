//! Actions of the sample service: one type per operation, with its row of the route matrix.

use palisade::authz::{StepUp, policy::SEE_PERSONAL};

use super::{
    roles::{ERASE_NOTES, EXPORT, READ_NOTES, WRITE_NOTES},
    scopes::{EXPORTS_CREATE, NOTES_READ, NOTES_WRITE},
};

palisade::actions! {
    /// The rows of notes.
    pub static NOTES;

    /// List notes.
    Read ListNotes = Get "/v1/notes" as "listNotes" {
        Authenticated, scope Some(NOTES_READ), permission Some(READ_NOTES), quota Read,
        data Personal, audit "notes_listed", outage Closed, read_only Served,
    }
    /// Find notes by a sealed field. A found note confirms the value, so this takes the right to see it.
    Read SearchNotes = Post "/v1/notes/search" as "searchNotes" {
        NoKeys, scope Some(NOTES_READ), permission Some(SEE_PERSONAL), quota Read,
        data Personal, audit "notes_searched", outage Closed, read_only Served,
    }
    /// Create a note.
    Change CreateNote = Post "/v1/notes" as "createNote" {
        Authenticated, scope Some(NOTES_WRITE), permission Some(WRITE_NOTES), quota Write,
        data Personal, audit "note_created", outage Closed, read_only Refused,
    }
    /// Read one note.
    Read GetNote = Get "/v1/notes/{id}" as "getNote" {
        Authenticated, scope Some(NOTES_READ), permission Some(READ_NOTES), quota Read,
        data Personal, audit "note_read", outage Closed, read_only Served,
    }
    /// Update a note.
    Change UpdateNote = Patch "/v1/notes/{id}" as "updateNote" {
        Authenticated, scope Some(NOTES_WRITE), permission Some(WRITE_NOTES), quota Write,
        data Personal, audit "note_updated", outage Closed, read_only Refused,
    }
    /// Archive a note.
    Change ArchiveNote = Post "/v1/notes/{id}/archive" as "archiveNote" {
        Authenticated, scope Some(NOTES_WRITE), permission Some(WRITE_NOTES), quota Sensitive,
        data Tenant, audit "note_archived", outage Closed, read_only Refused,
    }
    /// Erase a note.
    Change EraseNote = Delete "/v1/notes/{id}" as "eraseNote" {
        NoKeys, scope Some(NOTES_WRITE), permission Some(ERASE_NOTES), quota Sensitive,
        data Personal, audit "note_erased", outage Closed, read_only Refused, step_up StepUp::RECENT,
    }
    /// Count the notes that list an item.
    Read GetItem = Get "/v1/items/{code}" as "getItem" {
        Authenticated, scope Some(NOTES_READ), permission Some(READ_NOTES), quota Read,
        data Tenant, audit "item_read", outage Closed, read_only Served,
    }
    /// Export notes as a file.
    Read CreateExport = Post "/v1/exports" as "createExport" {
        NoKeys, scope Some(EXPORTS_CREATE), permission Some(EXPORT), quota Export,
        data Tenant, audit "notes_exported", outage Closed, read_only Served, step_up StepUp::RECENT,
    }
}
