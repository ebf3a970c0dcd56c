//! E0382: use of moved value: `tx`
//! A committed transaction is over.

use service::{access::actions::CancelOrder, authz::Permit, domain::OrderId, store::WriteTx};

async fn commit(tx: WriteTx<CancelOrder>, permit: &Permit<CancelOrder>, id: OrderId) {
    let _ = tx.commit(permit, id).await;
    let _ = tx.commit(permit, id).await;
}

fn main() {
    let _ = commit;
}
