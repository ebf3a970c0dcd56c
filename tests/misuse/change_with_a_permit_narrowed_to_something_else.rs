//! E0308: expected `&ObjectPermit<'_, CancelOrder, Order>`, found `&ObjectPermit<'_, CancelOrder, Invoice>`
use service::{
    authz::{Permit, actions::CancelOrder},
    domain::{Invoice, Order, OrderStatus},
    store::WriteTx,
};

async fn change(tx: &mut WriteTx<CancelOrder>, permit: &Permit<CancelOrder>, order: &Order, invoice: &Invoice) {
    let Ok(narrowed) = permit.narrow(invoice) else { return };
    let _ = tx.set_order_status(&narrowed, OrderStatus::Cancelled, order.updated_at).await;
}

fn main() {
    let _ = change;
}
