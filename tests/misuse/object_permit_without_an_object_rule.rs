//! E0308: expected `&Locked<'_, Order>`, found `&Locked<'_, Invoice>`
//! An action has object permits only for object types with a rule in `object_rules.rs`.

use palisade::{authz::Permit, store::Locked};
use service::{access::actions::FulfilOrder, domain::Invoice};

fn object_permit(permit: &Permit<FulfilOrder>, invoice: &Locked<'_, Invoice>) {
    let _ = permit.for_object(invoice);
}

fn main() {
    let _ = object_permit;
}
