//! E0308: expected `&Next<Order>`, found `&OrderStatus`
//! A status changes by a transition of the locked object only.

use palisade::{model::Clock, store::{ObjectPermit, WriteTx}};
use service::{access::actions::CancelOrder, domain::{Order, OrderStatus}, store::orders};

async fn change(tx: &WriteTx<'_, CancelOrder>, permit: &ObjectPermit<'_, CancelOrder, Order>) {
    let _ = orders::set_status(tx, permit, &OrderStatus::Cancelled, Clock::system().now()).await;
}

fn main() {
    let _ = change;
}
