//! E0277: this action is declared as a read, so its permit cannot write
//! Only actions that change something begin a writing transaction.

use palisade::{authz::Permit, store::Database};
use sample::access::actions::GetNote;

async fn write(database: &Database, permit: &Permit<GetNote>) {
    let _ = database.write(permit).await;
}

fn main() {
    let _ = write;
}
