//! E0015: cannot call non-const
//! The row of an action is a constant, so its name in audit events is in the code.

use palisade::authz::{Action, Row, kind};

enum Mine {}

fn row() -> &'static Row {
    loop {}
}

impl Action for Mine {
    type Kind = kind::Change;

    const ROW: &'static Row = row();
}

fn main() {}
