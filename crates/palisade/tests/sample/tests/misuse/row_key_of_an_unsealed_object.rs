//! E0277: the trait bound `Other: SealedRow` is not satisfied
//! An object permit for an object without sealed columns gives no power over row keys.

use palisade::store::{Lockable, ObjectPermit, WriteTx};
use sample::{access::actions::ArchiveNote, store::StoredNote};

async fn erase<Other: Lockable>(tx: &WriteTx<'_, ArchiveNote>, permit: &ObjectPermit<'_, ArchiveNote, Other>) {
    let _ = tx.erase(permit, "", Default::default()).await;
}

fn main() {
    let _ = erase::<StoredNote>;
}
