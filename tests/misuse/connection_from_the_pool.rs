//! E0616: field `writer` of struct `service::store::Database` is private
//! Only the store sends SQL, so the pools are private.

use service::store::Database;

fn connection(database: &Database) {
    let _ = database.writer.acquire();
}

fn main() {
    let _ = connection;
}
