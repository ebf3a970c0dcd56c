//! E0061: this method takes 3 arguments but 2 arguments were supplied
//! A transaction that claimed an idempotency key stores its response.

use service::{access::actions::CreatePayment, authz::Permit, domain::PaymentId, store::{Keyed, WriteTx}};

async fn commit(tx: WriteTx<CreatePayment, Keyed>, permit: &Permit<CreatePayment>, id: PaymentId) {
    let _ = tx.commit(permit, id).await;
}

fn main() {
    let _ = commit;
}
