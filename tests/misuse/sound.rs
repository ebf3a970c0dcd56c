//! compiles
// What the other cases spoil in one place each.
use service::{
    authz::{
        Permit,
        actions::{CancelOrder, GetOrder},
    },
    domain::{Order, OrderId, OrderStatus},
    store::{Database, StoreError, WriteTx},
};

async fn read(database: &Database, permit: &Permit<GetOrder>, id: OrderId) -> Result<Option<Order>, StoreError> {
    database.order(permit, id).await
}

async fn change(database: &Database, permit: &Permit<CancelOrder>, order: &Order) -> Result<(), StoreError> {
    let mut tx: WriteTx<CancelOrder> = database.write(permit).await?;
    let Ok(narrowed) = permit.narrow(order) else { return Ok(()) };
    tx.set_order_status(&narrowed, OrderStatus::Cancelled, order.updated_at).await?;
    tx.commit(permit, order.id).await
}

fn main() {
    let _ = (read, change);
}
