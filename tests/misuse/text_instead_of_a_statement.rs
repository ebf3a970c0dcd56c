//! E0308: expected `Insert`, found `&str`
//! A transaction takes checked statements only.

use palisade::store::WriteTx;
use service::access::actions::CreateOrder;

async fn change(tx: &WriteTx<'_, CreateOrder>) {
    let _ = tx.insert("delete from orders").await;
}

fn main() {
    let _ = change;
}
