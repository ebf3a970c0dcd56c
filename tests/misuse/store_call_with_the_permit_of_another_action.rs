//! E0308: expected `&Permit<GetOrder>`, found `&Permit<ListOrders>`
//! A query takes the permit of its own action.

use service::{access::actions::ListOrders, authz::Permit, domain::OrderId, store::{Database, orders}};

async fn read(database: &Database, permit: &Permit<ListOrders>, id: OrderId) {
    let _ = orders::get(database, permit, id).await;
}

fn main() {
    let _ = read;
}
