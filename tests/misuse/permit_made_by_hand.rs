//! E0451: fields `principal`, `row`, `personal`, `transactions` and `action` of struct `palisade::authz::Permit` are private
//! A permit comes from a grant only.

use std::{marker::PhantomData, sync::Arc};

use palisade::{authn::Principal, authz::{Permit, matrix::Row}};
use service::access::actions::GetOrder;

fn forge(principal: Arc<Principal>, row: &'static Row) -> Permit<GetOrder> {
    Permit { principal, row, personal: None, transactions: None, action: PhantomData }
}

fn main() {
    let _ = forge;
}
