//! E0505: cannot move out of `tx` because it is borrowed
//! An object permit does not outlive the transaction that locked the object.

use palisade::{authz::Permit, db::DbError, store::Database};
use service::{access::actions::CancelOrder, domain::{Order, OrderId}};

async fn change(database: &Database, permit: &Permit<CancelOrder>, id: OrderId) -> Result<OrderId, DbError> {
    let tx = database.write(permit).await?;
    let Some(order) = tx.lock::<Order>(id).await? else { return Ok(id) };
    let order_permit = permit.for_object(&order)?;
    tx.commit(permit, id).await?;
    Ok(order_permit.id())
}

fn main() {
    let _ = change;
}
