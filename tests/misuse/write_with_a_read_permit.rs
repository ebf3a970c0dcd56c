//! E0277: the trait bound `GetOrder: Change` is not satisfied
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
