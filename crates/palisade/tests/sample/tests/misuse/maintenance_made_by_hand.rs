//! E0423: cannot initialize a tuple struct which contains private fields
//! A `Database` does not become a `Maintenance`, which needs no permits.

use palisade::store::{Database, maintenance::Maintenance};

fn promote(database: &Database) -> Maintenance {
    Maintenance(database.clone())
}

fn main() {
    let _ = promote;
}
