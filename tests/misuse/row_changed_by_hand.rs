//! E0594: cannot assign to data in dereference of `service::authz::Row`
//! The columns of a row can be read, not changed.

use service::authz::Row;

fn open_to_all(row: &mut Row) {
    row.permission = None;
}

fn main() {
    let _ = open_to_all;
}
