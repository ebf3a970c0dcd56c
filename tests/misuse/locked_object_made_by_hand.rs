//! E0451: fields `id`, `object`, `tenant`, `transaction` and `open` of struct `Locked` are private
//! A locked object comes from a transaction only.

use palisade::{model::TenantId, store::Locked};
use service::domain::Order;

fn forge(order: Order, tenant: TenantId) -> Locked<'static, Order> {
    Locked { id: order.id, object: order, tenant, transaction: 1, open: std::marker::PhantomData }
}

fn main() {
    let _ = forge;
}
