//! E0599: doesn't satisfy `CreateCustomer: ObjectRule<Order>`
//! A transaction for one action locks only objects that the action has a rule for.

use service::{authz::actions::CreateCustomer, domain::OrderId, store::WriteTx};

async fn lock(tx: &mut WriteTx<CreateCustomer>, id: OrderId) {
    let _ = tx.lock_order(id).await;
}

fn main() {
    let _ = lock;
}
