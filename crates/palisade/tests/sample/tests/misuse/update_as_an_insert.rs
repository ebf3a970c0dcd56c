//! E0308: expected `Insert`, found `Update<StoredNote>`
//! A change of a row needs an object permit, so `insert` does not take it.

use palisade::store::{Update, WriteTx};
use sample::{access::actions::CreateNote, store::StoredNote};

async fn change(tx: &WriteTx<'_, CreateNote>, statement: Update<StoredNote>) {
    let _ = tx.insert(statement).await;
}

fn main() {
    let _ = change;
}
