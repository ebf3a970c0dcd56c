//! E0505: cannot move out of `tx` because it is borrowed
//! A locked object does not outlive its transaction.

use palisade::{authz::Permit, db::DbError, store::Database};
use service::{access::actions::CancelOrder, domain::{Order, OrderId}};

async fn change(database: &Database, permit: &Permit<CancelOrder>, id: OrderId) -> Result<(), DbError> {
    let tx = database.write(permit).await?;
    let Some(order) = tx.lock::<Order>(id).await? else { return Ok(()) };
    tx.commit(permit, id).await?;
    permit.for_object(&order).map(drop)
}

fn main() {
    let _ = change;
}
