//! E0451: fields `from`, `to`, `id` and `transaction` of struct `Next` are private
//! A transition comes from a locked object only.

use palisade::store::Next;
use service::domain::{Order, OrderId, OrderStatus};

fn forge(id: OrderId) -> Next<Order> {
    Next { from: OrderStatus::Placed, to: OrderStatus::Paid, id, transaction: 1 }
}

fn main() {
    let _ = forge;
}
