//! E0505: cannot move out of `tx` because it is borrowed
//! A locked object does not outlive its transaction.

use palisade::{authz::Permit, db::DbError, store::Database};
use sample::{access::actions::ArchiveNote, domain::NoteId, store::StoredNote};

async fn change(database: &Database, permit: &Permit<ArchiveNote>, id: NoteId) -> Result<(), DbError> {
    let tx = database.write(permit).await?;
    let Some(note) = tx.lock::<StoredNote>(id).await? else { return Ok(()) };
    tx.commit(permit, id).await?;
    permit.for_object(&note).map(drop)
}

fn main() {
    let _ = change;
}
