//! E0451: fields `object`, `transaction` and `open` of struct `Locked` are private
//! A locked object comes from a transaction only.

use service::{domain::Order, store::Locked};

fn forge(order: Order) -> Locked<'static, Order> {
    Locked { object: order, transaction: 1, open: std::marker::PhantomData }
}

fn main() {
    let _ = forge;
}
