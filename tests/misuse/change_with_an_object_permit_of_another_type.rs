//! E0308: expected `&ObjectPermit<'_, CancelOrder, Order>`, found `&ObjectPermit<'_, CancelOrder, Invoice>`
//! The status of an order changes with an object permit for that order, not for its invoice.

use service::{
    authz::{Permit, actions::CancelOrder},
    domain::{Invoice, Order, OrderStatus},
    store::WriteTx,
};

async fn change(tx: &mut WriteTx<CancelOrder>, permit: &Permit<CancelOrder>, order: &Order, invoice: &Invoice) {
    let Ok(object_permit) = permit.for_object(invoice) else { return };
    let _ = tx.set_order_status(&object_permit, OrderStatus::Cancelled, order.updated_at).await;
}

fn main() {
    let _ = change;
}
