//! E0308: expected `Insert`, found `Update`
//! A change of a row needs an object permit, so `insert` does not take it.

use palisade::store::{Update, WriteTx};
use service::access::actions::CreateOrder;

async fn change(tx: &WriteTx<CreateOrder>, statement: Update) {
    let _ = tx.insert(statement).await;
}

fn main() {
    let _ = change;
}
