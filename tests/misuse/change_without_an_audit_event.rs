//! E0061: this method takes 2 arguments but 0 arguments were supplied
//! A commit takes the permit and the object, so that no change is without an audit event.

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
    tx.commit().await
}

fn main() {
    let _ = (read, change);
}
