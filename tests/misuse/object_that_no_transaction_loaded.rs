//! E0308: expected `&Locked<'_, _>`, found `&Order`
//! An object permit is for a locked object, not for one of another origin.

use palisade::authz::Permit;
use service::{access::actions::CancelOrder, domain::Order};

fn object_permit(permit: &Permit<CancelOrder>, order: &Order) {
    let _ = permit.for_object(order);
}

fn main() {
    let _ = object_permit;
}
