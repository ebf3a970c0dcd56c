//! E0616: field `writer` of struct `palisade::store::Database` is private
//! Only the store sends SQL, so the pools are private.

use palisade::store::Database;

fn connection(database: &Database) {
    let _ = database.writer.acquire();
}

fn main() {
    let _ = connection;
}
