//! E0616: field `writer` of struct `service::store::Database` is private
use service::store::Database;

fn connection(database: &Database) {
    let _ = database.writer.acquire();
}

fn main() {
    let _ = connection;
}
