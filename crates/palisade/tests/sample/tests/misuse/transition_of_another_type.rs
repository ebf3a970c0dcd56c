//! E0308: expected `&Next<StoredNote>`, found `&Next<Other>`
//! The status of a note changes by a transition of a note, not of another object.

use palisade::{model::Clock, store::{Lockable, Next, ObjectPermit, WriteTx}};
use sample::{access::actions::ArchiveNote, store::{StoredNote, archive}};

async fn change<Other: Lockable>(
    tx: &WriteTx<'_, ArchiveNote>,
    permit: &ObjectPermit<'_, ArchiveNote, StoredNote>,
    next: &Next<Other>,
) {
    let _ = archive(tx, permit, next, Clock::system().now()).await;
}

fn main() {
    let _ = change::<StoredNote>;
}
