//! E0451: fields `id`, `object`, `tenant`, `transaction` and `open` of struct `Locked` are private
//! A locked object comes from a transaction only.

use palisade::{model::TenantId, store::{Lockable, Locked}};
use sample::store::StoredNote;

fn forge(note: StoredNote, tenant: TenantId) -> Locked<'static, StoredNote> {
    Locked { id: note.id(), object: note, tenant, transaction: 1, open: std::marker::PhantomData }
}

fn main() {
    let _ = forge;
}
