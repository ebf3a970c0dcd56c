//! E0624: method `connection` is private
//! Only the store sends SQL, so a transaction does not hand out its connection.

use service::{authz::actions::GetOrder, store::ReadTx};

fn connection(tx: &mut ReadTx<GetOrder>) {
    let _ = tx.connection();
}

fn main() {
    let _ = connection;
}
