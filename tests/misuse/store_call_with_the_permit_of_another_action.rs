//! E0308: expected `&Permit<GetOrder>`, found `&Permit<ListOrders>`
//! A query takes the permit of its own action.

use service::{
    authz::{Permit, actions::ListOrders},
    domain::OrderId,
    store::Database,
};

async fn read(database: &Database, permit: &Permit<ListOrders>, id: OrderId) {
    let _ = database.order(permit, id).await;
}

fn main() {
    let _ = read;
}
