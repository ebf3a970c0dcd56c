//! E0451: fields `principal`, `row`, `sees_personal` and `action` of struct `service::authz::Permit` are private
//! A permit comes from a grant only.

use std::{marker::PhantomData, sync::Arc};

use service::{
    access::actions::GetOrder,
    authn::Principal,
    authz::{Permit, matrix::Row},
};

fn forge(principal: Arc<Principal>, row: &'static Row) -> Permit<GetOrder> {
    Permit { principal, row, sees_personal: true, action: PhantomData }
}

fn main() {
    let _ = forge;
}
