//! E0308: expected `Insert`, found `Update<Order>`
//! A change of a row needs an object permit, so `insert` does not take it.

use palisade::store::{Update, WriteTx};
use service::{access::actions::CreateOrder, domain::Order};

async fn change(tx: &WriteTx<'_, CreateOrder>, statement: Update<Order>) {
    let _ = tx.insert(statement).await;
}

fn main() {
    let _ = change;
}
