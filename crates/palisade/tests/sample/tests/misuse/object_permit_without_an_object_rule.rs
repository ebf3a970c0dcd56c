//! E0308: expected `&Locked<'_, StoredNote>`, found `&Locked<'_, Other>`
//! An action has object permits only for object types with a rule in `object_rules.rs`.

use palisade::{authz::Permit, store::{Lockable, Locked}};
use sample::{access::actions::ArchiveNote, store::StoredNote};

fn object_permit<Other: Lockable>(permit: &Permit<ArchiveNote>, other: &Locked<'_, Other>) {
    let _ = permit.for_object(other);
}

fn main() {
    let _ = object_permit::<StoredNote>;
}
