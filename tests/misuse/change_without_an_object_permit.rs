//! E0308: expected `&ObjectPermit<'_, CancelOrder, Order>`, found `&Permit<CancelOrder>`
//! A change needs the second check: a permit for the operation is no permit for the object.

use service::{
    authz::{Permit, actions::CancelOrder},
    domain::{Order, OrderStatus},
    store::WriteTx,
};

async fn change(tx: &mut WriteTx<CancelOrder>, permit: &Permit<CancelOrder>, order: &Order) {
    let _ = tx.set_order_status(permit, OrderStatus::Cancelled, order.updated_at).await;
}

fn main() {
    let _ = change;
}
