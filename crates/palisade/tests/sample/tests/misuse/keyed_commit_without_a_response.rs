//! E0061: this method takes 3 arguments but 2 arguments were supplied
//! A transaction that claimed an idempotency key stores its response.

use palisade::{authz::Permit, store::{Keyed, WriteTx}};
use sample::{access::actions::CreateNote, domain::NoteId};

async fn commit(tx: WriteTx<'_, CreateNote, Keyed>, permit: &Permit<CreateNote>, id: NoteId) {
    let _ = tx.commit(permit, id).await;
}

fn main() {
    let _ = commit;
}
