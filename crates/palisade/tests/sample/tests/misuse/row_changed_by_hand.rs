//! E0594: cannot assign to data in dereference of `palisade::authz::Row`
//! The columns of a row can be read, not changed.

use palisade::authz::Row;

fn open_to_all(row: &mut Row) {
    row.permission = None;
}

fn main() {
    let _ = open_to_all;
}
