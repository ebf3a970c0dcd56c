//! E0505: cannot move out of `tx` because it is borrowed
//! An object permit does not outlive the transaction that locked the object.

use palisade::{authz::Permit, db::DbError, store::Database};
use sample::{access::actions::ArchiveNote, domain::NoteId, store::StoredNote};

async fn change(database: &Database, permit: &Permit<ArchiveNote>, id: NoteId) -> Result<NoteId, DbError> {
    let tx = database.write(permit).await?;
    let Some(note) = tx.lock::<StoredNote>(id).await? else { return Ok(id) };
    let note_permit = permit.for_object(&note)?;
    tx.commit(permit, id).await?;
    Ok(note_permit.id())
}

fn main() {
    let _ = change;
}
