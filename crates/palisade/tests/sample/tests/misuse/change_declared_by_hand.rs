//! E0119: conflicting implementations of trait `palisade::authz::Change` for type `Mine`
//! Which actions may write follows from their kind, and cannot be implemented.

use palisade::authz::{Action, Change, Row, actions::GetMe, kind};

enum Mine {}

impl Action for Mine {
    type Kind = kind::Read;

    const ROW: &'static Row = GetMe::ROW;
}

impl Change for Mine {}

fn main() {}
