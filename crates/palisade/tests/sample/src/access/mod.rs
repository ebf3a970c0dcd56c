//! Access rules of the sample service: actions with their rows of the route matrix, scopes, roles,
//! and the state that each change requires of a note.

pub mod actions;
pub mod roles;
pub mod scopes;

use palisade::{
    authz::{Access, Rights},
    model::State as _,
};

use crate::{domain::NoteStatus, store::StoredNote};
use actions::{ArchiveNote, EraseNote, UpdateNote};

/// Everything that the service declares about access.
pub static ACCESS: Access =
    Access { actions: &[actions::NOTES], rights: Rights { scopes: &scopes::ALL, roles: roles::TABLE } };

palisade::object_rules! {
    UpdateNote on StoredNote if |note| note.status() == NoteStatus::Draft;
    ArchiveNote on StoredNote if |note| note.status().may_become(NoteStatus::Archived);
    EraseNote on StoredNote if |_note| true;
}
