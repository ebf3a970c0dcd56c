//! E0451: fields `principal`, `row`, `personal`, `transactions` and `action` of struct `palisade::authz::Permit` are private
//! A permit comes from a grant only.

use std::{marker::PhantomData, sync::Arc};

use palisade::{authn::Principal, authz::{Permit, matrix::Row}};
use sample::access::actions::GetNote;

fn forge(principal: Arc<Principal>, row: &'static Row) -> Permit<GetNote> {
    Permit { principal, row, personal: None, transactions: None, action: PhantomData }
}

fn main() {
    let _ = forge;
}
