//! E0451: fields `permit`, `id` and `transaction` of struct `ObjectPermit` are private
//! An object permit comes from a permit and a locked object only.

use palisade::{authz::Permit, store::ObjectPermit};
use service::{access::actions::CancelOrder, domain::{Order, OrderId}};

fn forge(permit: &Permit<CancelOrder>, id: OrderId) -> ObjectPermit<'_, CancelOrder, Order> {
    ObjectPermit { permit, id, transaction: 1 }
}

fn main() {
    let _ = forge;
}
