//! E0277: the trait bound `MyKind: actions::sealed::ActionKind` is not satisfied
//! An action is a read or a change; there are no other kinds.

use palisade::authz::{Action, Row, actions::GetMe};

enum MyKind {}

enum Mine {}

impl Action for Mine {
    type Kind = MyKind;

    const ROW: &'static Row = GetMe::ROW;
}

fn main() {}
