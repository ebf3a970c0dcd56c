//! E0308: expected `Insert`, found `Update`
//! A change of a row needs an object permit, so `insert` does not take it.

use service::{access::actions::CreateOrder, store::{Update, WriteTx}};

async fn change(tx: &WriteTx<CreateOrder>, statement: Update) {
    let _ = tx.insert(statement).await;
}

fn main() {
    let _ = change;
}
