//! Changes of notes: update and archive. Each locks the note first.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use palisade::{
    authz::Permit,
    crypto::{BlindIndex, DataKey, Sealed},
    model::TenantId,
    store::{Database, DbError, Json, Loader, Lockable, Next, ObjectPermit, SealedRow, WriteTx, parse_stored},
};

use super::{Note, NoteRow, NoteTable, notes};
use crate::{
    access::actions::{ArchiveNote, UpdateNote},
    domain::{Item, NoteChange, NoteId, NoteStatus},
};

/// A note as it is stored, with its row key still wrapped.
pub struct StoredNote {
    row: NoteRow,
    tenant: TenantId,
    status: NoteStatus,
}

impl StoredNote {
    /// Its state.
    #[must_use]
    pub fn status(&self) -> NoteStatus {
        self.status
    }
}

impl Lockable for StoredNote {
    type Id = NoteId;
    type State = NoteStatus;

    fn id(&self) -> NoteId {
        NoteId::from_uuid(self.row.id)
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn state(&self) -> NoteStatus {
        self.status
    }

    /// Locks the rows of the note and of its key, so that no rotation changes the key.
    async fn load(tx: &Loader<'_>, id: NoteId) -> Result<Option<Self>, DbError> {
        let statement =
            notes!(select, tx, "join", "tenant_id = $1 and id = $2 for no key update of notes, k", id.uuid());
        let Some(row) = tx.fetch_optional(statement).await? else { return Ok(None) };
        Ok(Some(Self { status: parse_stored(&row.status)?, tenant: tx.tenant(), row }))
    }
}

impl SealedRow for StoredNote {
    type Table = NoteTable;
}

/// Applies a change to a note and commits it; an empty one changes nothing. `None` if there is no
/// such note.
///
/// While a data key is fetched, no row is locked and no connection is taken: a vault may be slow.
pub async fn update(
    database: &Database,
    permit: &Permit<UpdateNote>,
    id: NoteId,
    change: &NoteChange,
    now: DateTime<Utc>,
) -> Result<Option<Note>, DbError> {
    let mut fetched: Option<(i32, Option<Arc<DataKey>>)> = None;
    // Repeats if a rotation changed the data key in between.
    loop {
        let version = {
            let tx = database.write(permit).await?;
            let Some(stored) = tx.lock::<StoredNote>(id).await? else { return Ok(None) };
            let note_permit = permit.for_object(&stored)?;
            let version = stored.row.data_key_version(permit)?;
            let key = match fetched {
                Some((fetched_version, key)) if fetched_version == version => Some(key.ok_or(DbError::KeyDropped)?),
                _ => database.cached_data_key(permit, version),
            };
            if let Some(key) = key {
                let note = stored.row.clone().open_with(&key, permit)?;
                if change.is_empty() {
                    return Ok(Some(note));
                }
                let note = note.change(change, &database.indexes(), now)?;
                store(&tx, &note_permit, &note, stored.row.index_key).await?;
                tx.commit(permit, id).await?;
                return Ok(Some(note));
            }
            version
        };
        fetched = match database.data_key(permit, version).await {
            Ok(key) => Some((version, Some(key))),
            // A rotation has most likely given the note a newer data key.
            Err(DbError::KeyDropped) => Some((version, None)),
            Err(error) => return Err(error),
        };
    }
}

async fn store(
    tx: &WriteTx<'_, UpdateNote>,
    permit: &ObjectPermit<'_, UpdateNote, StoredNote>,
    note: &Note,
    stored_index_key: Option<i32>,
) -> Result<(), DbError> {
    let statement = palisade::update!(
        permit,
        "update notes set priority = $3, remark = $4, email = $5::bytea, phone = $6::bytea, email_index = $7::bytea,
                          updated_at = $8
         where tenant_id = $1 and id = $2",
        note.priority.as_str(),
        note.remark,
        note.email.as_ref().map(Sealed::bytes),
        note.phone.as_ref().map(Sealed::bytes),
        note.email_index.as_ref().map(BlindIndex::bytes),
        note.updated_at
    );
    tx.change(permit, statement).await?;
    if stored_index_key == Some(i32::from(note.index_key)) {
        return Ok(());
    }
    tx.set_index_key(permit, note.index_key).await
}

/// Stores the new state of the note of the permit.
pub async fn archive<K>(
    tx: &WriteTx<'_, ArchiveNote, K>,
    permit: &ObjectPermit<'_, ArchiveNote, StoredNote>,
    next: &Next<StoredNote>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let statement = palisade::transition!(
        permit,
        next,
        "update notes set status = $3, updated_at = $5 where tenant_id = $1 and id = $2 and status = $4",
        now
    );
    tx.transition(permit, statement).await
}
