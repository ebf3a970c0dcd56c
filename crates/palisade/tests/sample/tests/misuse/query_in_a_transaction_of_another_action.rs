//! E0308: expected `&WriteTx<'_, ArchiveNote, _>`, found `&WriteTx<'_, UpdateNote>`
//! A query runs in the transaction of its own action.

use palisade::{model::Clock, store::{Next, ObjectPermit, WriteTx}};
use sample::{access::actions::{ArchiveNote, UpdateNote}, store::{StoredNote, archive}};

async fn change(
    tx: &WriteTx<'_, UpdateNote>,
    permit: &ObjectPermit<'_, ArchiveNote, StoredNote>,
    next: &Next<StoredNote>,
) {
    let _ = archive(tx, permit, next, Clock::system().now()).await;
}

fn main() {
    let _ = change;
}
