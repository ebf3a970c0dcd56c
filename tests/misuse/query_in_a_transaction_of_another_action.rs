//! E0308: expected `&WriteTx<'_, PutProduct>`, found `&WriteTx<'_, CreateCustomer>`
//! A query runs in the transaction of its own action.

use palisade::store::WriteTx;
use service::{access::actions::CreateCustomer, domain::Product, store::products};

async fn write(tx: &WriteTx<'_, CreateCustomer>, product: &Product) {
    let _ = products::put(tx, product).await;
}

fn main() {
    let _ = write;
}
