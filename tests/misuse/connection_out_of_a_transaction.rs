//! E0624: method `connection` is private
use service::{authz::actions::GetOrder, store::ReadTx};

fn connection(tx: &mut ReadTx<GetOrder>) {
    let _ = tx.connection();
}

fn main() {
    let _ = connection;
}
