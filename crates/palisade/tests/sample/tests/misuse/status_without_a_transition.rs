//! E0308: expected `&Next<StoredNote>`, found `&NoteStatus`
//! A status changes by a transition of the locked object only.

use palisade::{model::Clock, store::{ObjectPermit, WriteTx}};
use sample::{access::actions::ArchiveNote, domain::NoteStatus, store::{StoredNote, archive}};

async fn change(tx: &WriteTx<'_, ArchiveNote>, permit: &ObjectPermit<'_, ArchiveNote, StoredNote>) {
    let _ = archive(tx, permit, &NoteStatus::Archived, Clock::system().now()).await;
}

fn main() {
    let _ = change;
}
