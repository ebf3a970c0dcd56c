//! E0277: `String` is no identifier of an object, so no audit event names it
//! An audit event outlives the erasure of a person, so it has identifiers only.

use palisade::{authz::Permit, store::WriteTx};
use sample::access::actions::UpdateNote;

async fn commit(tx: WriteTx<'_, UpdateNote>, permit: &Permit<UpdateNote>, email: String) {
    let _ = tx.commit(permit, email).await;
}

fn main() {
    let _ = commit;
}
