//! E0061: this method takes 3 arguments but 4 arguments were supplied
//! The row key that an erasure deletes is that of the permitted object.

use palisade::store::{ObjectPermit, WriteTx};
use sample::{access::actions::EraseNote, domain::NoteId, store::StoredNote};

async fn erase(
    tx: &WriteTx<'_, EraseNote>,
    permit: &ObjectPermit<'_, EraseNote, StoredNote>,
    other: NoteId,
) {
    let _ = tx.erase(permit, other, "", Default::default()).await;
}

fn main() {
    let _ = erase;
}
