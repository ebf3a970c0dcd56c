//! E0308: expected `&ObjectPermit<'_, ArchiveNote, ...>`, found `&ObjectPermit<'_, ArchiveNote, Other>`
//! The status of a note changes with an object permit for that note, not for another object.

use palisade::{model::Clock, store::{Lockable, Next, ObjectPermit, WriteTx}};
use sample::{access::actions::ArchiveNote, store::{StoredNote, archive}};

async fn change<Other: Lockable>(
    tx: &WriteTx<'_, ArchiveNote>,
    permit: &ObjectPermit<'_, ArchiveNote, Other>,
    next: &Next<StoredNote>,
) {
    let _ = archive(tx, permit, next, Clock::system().now()).await;
}

fn main() {
    let _ = change::<StoredNote>;
}
