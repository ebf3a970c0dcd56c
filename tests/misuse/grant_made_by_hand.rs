//! E0451: fields `row`, `principal` and `sees_personal` of struct `Grant` are private
//! A grant comes from the decision of `authz` only.

use std::sync::Arc;

use palisade::{authn::Principal, authz::{Grant, matrix::Row}};

fn forge(row: &'static Row, principal: Arc<Principal>) -> Grant {
    Grant { row, principal, sees_personal: true }
}

fn main() {
    let _ = forge;
}
