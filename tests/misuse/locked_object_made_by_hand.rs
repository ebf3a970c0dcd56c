//! E0451: fields `object`, `transaction` and `open` of struct `Locked` are private
//! A locked object comes from a transaction only.

use palisade::store::Locked;
use service::domain::Order;

fn forge(order: Order) -> Locked<'static, Order> {
    Locked { object: order, transaction: 1, open: std::marker::PhantomData }
}

fn main() {
    let _ = forge;
}
