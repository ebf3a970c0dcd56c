//! compiles
//! The correct code. Each of the other files differs from such code in one place.

use palisade::{authz::Permit, db::DbError, model::Clock, store::Database};
use service::{access::actions::{CancelOrder, GetOrder}, domain::{Order, OrderId, OrderStatus}, store::orders};

async fn read(database: &Database, permit: &Permit<GetOrder>, id: OrderId) -> Result<Option<Order>, DbError> {
    orders::get(database, permit, id).await
}

async fn change(database: &Database, permit: &Permit<CancelOrder>, id: OrderId) -> Result<(), DbError> {
    let tx = database.write(permit).await?;
    let Some(order) = tx.lock::<Order>(id).await? else { return Ok(()) };
    let order_permit = permit.for_object(&order)?;
    let next = order.advance(OrderStatus::Cancelled)?;
    orders::set_status(&tx, &order_permit, &next, Clock::system().now()).await?;
    tx.commit(permit, id).await
}

fn main() {
    let _ = (read, change);
}
