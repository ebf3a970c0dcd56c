//! E0599: no method named `insert` found for reference `&ReadTx<'_, ListOrders>` in the current scope
//! A read transaction takes no statement that writes.

use palisade::store::{Insert, ReadTx};
use service::access::actions::ListOrders;

async fn write(tx: &ReadTx<'_, ListOrders>, statement: Insert) {
    let _ = tx.insert(statement).await;
}

fn main() {
    let _ = write;
}
