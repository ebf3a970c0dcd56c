//! E0308: expected `&Next<Order>`, found `&Next<Invoice>`
//! The status of an order changes by a transition of an order, not of its invoice.

use palisade::{model::Clock, store::{Next, ObjectPermit, WriteTx}};
use service::{access::actions::CancelOrder, domain::{Invoice, Order}, store::orders};

async fn change(
    tx: &WriteTx<'_, CancelOrder>,
    permit: &ObjectPermit<'_, CancelOrder, Order>,
    next: &Next<Invoice>,
) {
    let _ = orders::set_status(tx, permit, next, Clock::system().now()).await;
}

fn main() {
    let _ = change;
}
