//! E0061: this method takes 1 argument but 2 arguments were supplied
//! The row key that an erasure deletes is that of the permitted object.

use palisade::store::{ObjectPermit, WriteTx};
use sample::{access::actions::EraseNote, domain::NoteId, store::StoredNote};

async fn erase(
    tx: &WriteTx<'_, EraseNote>,
    permit: &ObjectPermit<'_, EraseNote, StoredNote>,
    other: NoteId,
) {
    let _ = tx.delete_row_key(permit, other).await;
}

fn main() {
    let _ = erase;
}
