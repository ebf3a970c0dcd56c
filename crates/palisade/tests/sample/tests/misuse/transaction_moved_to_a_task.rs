//! E0521: borrowed data escapes outside of function
//! A transaction borrows its permit, so it ends with the request.

use palisade::{authz::Permit, store::Database};
use sample::access::actions::ArchiveNote;

async fn keep(database: &Database, permit: &Permit<ArchiveNote>) {
    let tx = database.write(permit).await;
    std::thread::spawn(move || drop(tx));
}

fn main() {
    let _ = keep;
}
