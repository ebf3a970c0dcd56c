//! E0308: expected `&ObjectPermit<'_, CancelOrder, Order>`, found `&ObjectPermit<'_, CancelOrder, Invoice>`
//! The status of an order changes with an object permit for that order, not for its invoice.

use palisade::{model::Clock, store::{Next, ObjectPermit, WriteTx}};
use service::{access::actions::CancelOrder, domain::{Invoice, Order}, store::orders};

async fn change(
    tx: &WriteTx<'_, CancelOrder>,
    permit: &ObjectPermit<'_, CancelOrder, Invoice>,
    next: &Next<Order>,
) {
    let _ = orders::set_status(tx, permit, next, Clock::system().now()).await;
}

fn main() {
    let _ = change;
}
