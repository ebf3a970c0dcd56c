//! E0521: borrowed data escapes outside of function
//! A transaction borrows its permit, so it ends with the request.

use palisade::{authz::Permit, store::Database};
use service::access::actions::CancelOrder;

async fn keep(database: &Database, permit: &Permit<CancelOrder>) {
    let tx = database.write(permit).await;
    std::thread::spawn(move || drop(tx));
}

fn main() {
    let _ = keep;
}
