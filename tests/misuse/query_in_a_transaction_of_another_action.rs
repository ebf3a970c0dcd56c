//! E0308: expected `&WriteTx<PutProduct>`, found `&WriteTx<CreateCustomer>`
//! A query runs in the transaction of its own action.

use palisade::store::WriteTx;
use service::{access::actions::CreateCustomer, domain::Product, store::products};

async fn write(tx: &WriteTx<CreateCustomer>, product: &Product) {
    let _ = products::put(tx, product).await;
}

fn main() {
    let _ = write;
}
