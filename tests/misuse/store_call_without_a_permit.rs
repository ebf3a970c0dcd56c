//! E0061: this function takes 3 arguments but 2 arguments were supplied
//! A query takes a permit.

use palisade::store::Database;
use service::{domain::OrderId, store::orders};

async fn read(database: &Database, id: OrderId) {
    let _ = orders::get(database, id).await;
}

fn main() {
    let _ = read;
}
