//! E0451: fields `principal`, `row` and `action` of struct `Permit` are private
//! A permit comes from a grant only.

use std::{marker::PhantomData, sync::Arc};

use service::{
    authn::Principal,
    authz::{Permit, actions::GetOrder, matrix::Row},
};

fn forge(principal: Arc<Principal>, row: &'static Row) -> Permit<GetOrder> {
    Permit { principal, row, action: PhantomData }
}

fn main() {
    let _ = forge;
}
