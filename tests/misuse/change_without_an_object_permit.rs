//! E0308: expected `&ObjectPermit<'_, CancelOrder, Order>`, found `&Permit<CancelOrder>`
//! A change needs the second check: a permit for the operation is no permit for the object.

use palisade::{authz::Permit, model::Clock, store::{Next, WriteTx}};
use service::{access::actions::CancelOrder, domain::Order, store::orders};

async fn change(tx: &WriteTx<'_, CancelOrder>, permit: &Permit<CancelOrder>, next: &Next<Order>) {
    let _ = orders::set_status(tx, permit, next, Clock::system().now()).await;
}

fn main() {
    let _ = change;
}
