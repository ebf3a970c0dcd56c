//! E0277: the trait bound `Order: SealedRow` is not satisfied
//! An object permit for an order gives no power over the row keys of customers.

use palisade::store::{ObjectPermit, WriteTx};
use service::{access::actions::CancelOrder, domain::Order};

async fn erase(tx: &WriteTx<'_, CancelOrder>, permit: &ObjectPermit<'_, CancelOrder, Order>) {
    let _ = tx.erase(permit, "", Default::default()).await;
}

fn main() {
    let _ = erase;
}
