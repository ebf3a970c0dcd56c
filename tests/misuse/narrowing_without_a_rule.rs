//! E0308: expected `&Order`, found `&Invoice`
use service::{
    authz::{Permit, actions::FulfilOrder},
    domain::Invoice,
};

fn narrow(permit: &Permit<FulfilOrder>, invoice: &Invoice) {
    let _ = permit.narrow(invoice);
}

fn main() {
    let _ = narrow;
}
