//! E0599: no method named `insert` found for reference `&ReadTx<'_, ListNotes>` in the current scope
//! A read transaction takes no statement that writes.

use palisade::store::{Insert, ReadTx};
use sample::access::actions::ListNotes;

async fn write(tx: &ReadTx<'_, ListNotes>, statement: Insert) {
    let _ = tx.insert(statement).await;
}

fn main() {
    let _ = write;
}
