//! E0308: expected `&Locked<'_, StoredNote>`, found `&StoredNote`
//! An object permit is for a locked object, not for one of another origin.

use palisade::authz::Permit;
use sample::{access::actions::ArchiveNote, store::StoredNote};

fn object_permit(permit: &Permit<ArchiveNote>, note: &StoredNote) {
    let _ = permit.for_object(note);
}

fn main() {
    let _ = object_permit;
}
