//! E0382: use of moved value: `tx`
//! A committed transaction is over.

use palisade::{authz::Permit, store::WriteTx};
use sample::{access::actions::ArchiveNote, domain::NoteId};

async fn commit(tx: WriteTx<'_, ArchiveNote>, permit: &Permit<ArchiveNote>, id: NoteId) {
    let _ = tx.commit(permit, id).await;
    let _ = tx.commit(permit, id).await;
}

fn main() {
    let _ = commit;
}
