//! E0061: this method takes 2 arguments but 1 argument was supplied
//! A query takes a permit.

use service::{domain::OrderId, store::Database};

async fn read(database: &Database, id: OrderId) {
    let _ = database.order(id).await;
}

fn main() {
    let _ = read;
}
