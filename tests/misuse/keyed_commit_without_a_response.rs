//! E0061: this method takes 3 arguments but 2 arguments were supplied
//! A transaction that claimed an idempotency key stores its response.

use palisade::{authz::Permit, store::{Keyed, WriteTx}};
use service::{access::actions::CreatePayment, domain::PaymentId};

async fn commit(tx: WriteTx<'_, CreatePayment, Keyed>, permit: &Permit<CreatePayment>, id: PaymentId) {
    let _ = tx.commit(permit, id).await;
}

fn main() {
    let _ = commit;
}
