//! compiles
//! The correct code. Each of the other files differs from such code in one place.

use service::{
    authz::{
        Permit,
        actions::{CancelOrder, GetOrder},
    },
    db::DbError,
    domain::{Order, OrderId, OrderStatus},
    store::{Database, WriteTx},
};

async fn read(database: &Database, permit: &Permit<GetOrder>, id: OrderId) -> Result<Option<Order>, DbError> {
    database.order(permit, id).await
}

async fn change(database: &Database, permit: &Permit<CancelOrder>, order: &Order) -> Result<(), DbError> {
    let mut tx: WriteTx<CancelOrder> = database.write(permit).await?;
    let Ok(object_permit) = permit.for_object(order) else { return Ok(()) };
    tx.set_order_status(&object_permit, OrderStatus::Cancelled, order.updated_at).await?;
    tx.commit(permit, order.id).await
}

fn main() {
    let _ = (read, change);
}
