//! E0308: expected `Insert`, found `&str`
//! A transaction takes checked statements only.

use palisade::store::WriteTx;
use sample::access::actions::CreateNote;

async fn change(tx: &WriteTx<'_, CreateNote>) {
    let _ = tx.insert("delete from notes").await;
}

fn main() {
    let _ = change;
}
