//! E0451: fields `columns`, `action` and `action_name` of struct `palisade::authz::Row` are private
//! A row comes from `Row::new` only, which checks it and notes the type of its action.

use palisade::authz::{Columns, Row};

fn forge(columns: Columns) -> Row {
    Row { columns, action: std::any::TypeId::of::<()>(), action_name: std::any::type_name::<()> }
}

fn main() {
    let _ = forge;
}
