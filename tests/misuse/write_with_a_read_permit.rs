//! E0277: the trait bound `GetOrder: Change` is not satisfied
//! Only actions that change something begin a writing transaction.

use service::{
    authz::{Permit, actions::GetOrder},
    store::Database,
};

async fn write(database: &Database, permit: &Permit<GetOrder>) {
    let _ = database.write(permit).await;
}

fn main() {
    let _ = write;
}
