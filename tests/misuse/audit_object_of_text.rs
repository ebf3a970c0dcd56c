//! E0277: `String` is no identifier of an object, so no audit event names it
//! An audit event outlives the erasure of a person, so it has identifiers only.

use palisade::{authz::Permit, store::WriteTx};
use service::access::actions::UpdateCustomer;

async fn commit(tx: WriteTx<'_, UpdateCustomer>, permit: &Permit<UpdateCustomer>, email: String) {
    let _ = tx.commit(permit, email).await;
}

fn main() {
    let _ = commit;
}
