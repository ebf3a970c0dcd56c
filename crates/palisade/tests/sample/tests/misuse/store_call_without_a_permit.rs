//! E0061: this function takes 3 arguments but 2 arguments were supplied
//! A query takes a permit.

use palisade::store::Database;
use sample::{domain::NoteId, store::get};

async fn read(database: &Database, id: NoteId) {
    let _ = get(database, id).await;
}

fn main() {
    let _ = read;
}
