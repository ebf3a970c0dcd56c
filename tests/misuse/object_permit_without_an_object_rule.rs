//! E0308: expected `&Order`, found `&Invoice`
//! An action has object permits only for object types with a rule in `object_rules.rs`.

use service::{
    authz::{Permit, actions::FulfilOrder},
    domain::Invoice,
};

fn object_permit(permit: &Permit<FulfilOrder>, invoice: &Invoice) {
    let _ = permit.for_object(invoice);
}

fn main() {
    let _ = object_permit;
}
