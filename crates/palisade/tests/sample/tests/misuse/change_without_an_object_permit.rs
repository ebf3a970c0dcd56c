//! E0308: expected `&ObjectPermit<'_, ArchiveNote, ...>`, found `&Permit<ArchiveNote>`
//! A change needs the second check: a permit for the operation is no permit for the object.

use palisade::{authz::Permit, model::Clock, store::{Next, WriteTx}};
use sample::{access::actions::ArchiveNote, store::{StoredNote, archive}};

async fn change(tx: &WriteTx<'_, ArchiveNote>, permit: &Permit<ArchiveNote>, next: &Next<StoredNote>) {
    let _ = archive(tx, permit, next, Clock::system().now()).await;
}

fn main() {
    let _ = change;
}
