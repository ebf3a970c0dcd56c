//! E0451: fields `permit`, `id` and `transaction` of struct `ObjectPermit` are private
//! An object permit comes from a permit and a locked object only.

use palisade::{authz::Permit, store::ObjectPermit};
use sample::{access::actions::ArchiveNote, domain::NoteId, store::StoredNote};

fn forge(permit: &Permit<ArchiveNote>, id: NoteId) -> ObjectPermit<'_, ArchiveNote, StoredNote> {
    ObjectPermit { permit, id, transaction: 1 }
}

fn main() {
    let _ = forge;
}
