//! E0382: use of moved value: `tx`
//! A committed transaction is over.

use palisade::{authz::Permit, store::WriteTx};
use service::{access::actions::CancelOrder, domain::OrderId};

async fn commit(tx: WriteTx<'_, CancelOrder>, permit: &Permit<CancelOrder>, id: OrderId) {
    let _ = tx.commit(permit, id).await;
    let _ = tx.commit(permit, id).await;
}

fn main() {
    let _ = commit;
}
