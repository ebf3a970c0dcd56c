//! E0308: expected `&Permit<GetOrder>`, found `&Permit<ListOrders>`
//! A query takes the permit of its own action.

use palisade::{authz::Permit, store::Database};
use service::{access::actions::ListOrders, domain::OrderId, store::orders};

async fn read(database: &Database, permit: &Permit<ListOrders>, id: OrderId) {
    let _ = orders::get(database, permit, id).await;
}

fn main() {
    let _ = read;
}
