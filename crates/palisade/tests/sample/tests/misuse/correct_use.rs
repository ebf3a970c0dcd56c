//! compiles
//! The correct code. Each of the other files differs from such code in one place.

use palisade::{authz::Permit, db::DbError, model::Clock, store::Database};
use sample::{
    access::actions::{ArchiveNote, GetNote},
    domain::{NoteId, NoteStatus},
    store::{Note, StoredNote, archive, get},
};

async fn read(database: &Database, permit: &Permit<GetNote>, id: NoteId) -> Result<Option<Note>, DbError> {
    get(database, permit, id).await
}

async fn change(database: &Database, permit: &Permit<ArchiveNote>, id: NoteId) -> Result<(), DbError> {
    let tx = database.write(permit).await?;
    let Some(note) = tx.lock::<StoredNote>(id).await? else { return Ok(()) };
    let note_permit = permit.for_object(&note)?;
    let next = note.advance(NoteStatus::Archived)?;
    archive(&tx, &note_permit, &next, Clock::system().now()).await?;
    tx.commit(permit, id).await
}

fn main() {
    let _ = (read, change);
}
