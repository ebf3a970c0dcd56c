//! The SQL of notes: listing, reading and creating them. `record` has the sealed form, `changing`
//! the changes, `exports` the rows of exports. [`crate::api`] calls all of them with a permit.

mod changing;
mod exports;
mod record;

pub use changing::{StoredNote, archive, update};
pub(crate) use exports::{ExportedNote, count, exported};
use palisade::{
    authz::Permit,
    crypto::{BlindIndex, SealError, Sealed},
    store::{
        CreateRecord, Database, DbError, Json, KeyLookup, KeyedRequest, Listed, Position, SingleStatement,
        StoredColumns, StoredOutcome, StoredResponse,
    },
};
use record::NoteRow;

use crate::{
    access::actions::{CreateNote, GetItem, GetNote, ListNotes, SearchNotes},
    domain::{Email, Item, NoteId, Priority},
};
pub use record::{Note, NoteTable};

/// The migrations of the table, in the schema `public`.
pub static MIGRATIONS: palisade::store::Migrator = palisade::store::migrate!();

/// The reviewed rights of each login on the table.
pub const RIGHTS: &str = include_str!("../../rights.txt");

/// One statement `$kind!` that reads notes with their row keys. `$join` is `left join`, so that a note
/// without a key is listed as unreadable; `join` locks both rows. `$where` is its text after `where`.
macro_rules! notes {
    ($kind:ident, $source:expr, $join:literal, $where:literal, $($argument:expr),+ $(,)?) => {
        palisade::$kind!(
            $source,
            NoteRow,
            r#"select id as "id!", status as "status!", items as "items!: Json<Vec<Item>>", priority as "priority!",
                      remark, email, phone, email_index, index_key, data_key as "data_key?",
                      wrapped_key as "wrapped_key?", created_by as "created_by!", created_at as "created_at!",
                      updated_at as "updated_at!"
               from notes "# + $join + r#" palisade.row_keys as k (of_tenant, sealed_table, row_id, data_key, wrapped_key, index_key)
                    on k.of_tenant = tenant_id and k.sealed_table = 'notes' and k.row_id = id
               where erased_at is null and "# + $where,
            $($argument),+
        )
    };
}
use notes;

struct CountRow {
    count: i64,
}

/// Lists at most `limit` notes after `from`, newest first.
///
/// No connection is held while keys are unwrapped: a vault may be slow.
pub async fn page(
    database: &Database,
    permit: &Permit<ListNotes>,
    from: Position,
    limit: i64,
) -> Result<Vec<Listed<Note>>, DbError> {
    let statement = notes!(
        read_one,
        permit,
        "left join",
        "tenant_id = t.tenant and (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4",
        from.time(),
        from.id,
        limit
    );
    let rows = database.read_page(permit, statement).await?;
    let mut notes = Vec::with_capacity(rows.len());
    for row in rows {
        let position = Position { at: row.created_at, id: row.id };
        notes.push(Listed::new(position, row.open(database, permit).await)?);
    }
    Ok(notes)
}

/// Lists the notes whose blind index is that of `email` under any index key, as [`page`] does.
pub async fn search(
    database: &Database,
    permit: &Permit<SearchNotes>,
    from: Position,
    email: &Email,
    limit: i64,
) -> Result<Vec<Listed<Note>>, DbError> {
    let mut rows = Vec::new();
    let tx = database.read(permit).await?;
    for index in database.indexes().candidates(permit.tenant().uuid(), email) {
        let statement = notes!(
            select,
            tx,
            "left join",
            "tenant_id = $1 and (created_at, id) < ($2, $3) and email_index = $5
             order by created_at desc, id desc limit $4",
            from.time(),
            from.id,
            limit,
            index
        );
        rows.extend(tx.fetch_all(statement).await?);
    }
    // During a rotation of the index key, each key found a page of its own.
    rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.created_at, row.id)));
    rows.truncate(usize::try_from(limit).unwrap_or(0));
    drop(tx);
    let mut notes = Vec::with_capacity(rows.len());
    for row in rows {
        let position = Position { at: row.created_at, id: row.id };
        // A note that does not have the value does not hide those that have it.
        let checked = row.open(database, permit).await.and_then(|note| {
            note.email.as_ref().ok_or(SealError)?.check_equals(&note.key, email)?;
            Ok(note)
        });
        notes.push(Listed::new(position, checked)?);
    }
    Ok(notes)
}

/// Reads a note in one message.
pub async fn get(database: &Database, permit: &Permit<GetNote>, id: NoteId) -> Result<Option<Note>, DbError> {
    let statement = notes!(read_one, permit, "left join", "tenant_id = t.tenant and id = $2", id.uuid());
    let Some(row) = database.read_one(permit, statement).await? else { return Ok(None) };
    // Opens it with the requested id and tenant: the row of another note does not decrypt.
    let row = NoteRow { id: id.uuid(), ..row };
    Ok(Some(row.open(database, permit).await?))
}

/// Counts the notes that list an item.
pub async fn count_with_item(database: &Database, permit: &Permit<GetItem>, code: &str) -> Result<i64, DbError> {
    let statement = palisade::read_one!(
        permit,
        CountRow,
        r#"select count(*) as "count!" from notes
           where tenant_id = t.tenant and erased_at is null
             and items @> jsonb_build_array(jsonb_build_object('code', $2::text))"#,
        code
    );
    Ok(database.read_one(permit, statement).await?.map_or(0, |row| row.count))
}

struct InputsRow {
    express: i64,
    stored: Option<Json<StoredColumns>>,
}

/// Reads what a creation needs, in one message: the number of express drafts up to `limit`, and what
/// an earlier request with the same idempotency key left.
pub async fn inputs(
    statements: &mut SingleStatement<CreateNote>,
    permit: &Permit<CreateNote>,
    priority: Priority,
    limit: i64,
    request: Option<&KeyedRequest>,
) -> Result<(i64, Option<StoredOutcome>), DbError> {
    let lookup = KeyLookup::new(permit, request);
    let limit = if priority == Priority::Express { limit } else { 0 };
    let statement = palisade::read_inputs!(
        permit,
        &lookup,
        InputsRow,
        r#"select count(*) as "express!" from (
               select from notes where tenant_id = t.tenant and priority = 'express' and status = 'draft'
                                   and erased_at is null limit $7) n"#,
        limit
    );
    let row = statements.read_inputs(permit, statement).await?;
    Ok((row.express, lookup.outcome(row.stored.map(|stored| stored.0))))
}

/// Stores a new note with its audit event, and the response if the request had an idempotency key.
/// One message, so all or nothing.
pub async fn create(
    statements: SingleStatement<CreateNote>,
    permit: &Permit<CreateNote>,
    note: &Note,
    keyed: Option<(&KeyedRequest, &StoredResponse)>,
) -> Result<(), DbError> {
    let record = CreateRecord::new(permit, note.id, keyed).with_row_key::<NoteTable>(&note.key, Some(note.index_key));
    let statement = palisade::create!(
        permit,
        &record,
        "n as (
             insert into notes (tenant_id, id, status, items, priority, remark, email, phone, email_index, created_by,
                                created_at, updated_at)
             select t.tenant, $3::uuid, $4::text, $5::jsonb, $6::text, $7::text, $8::bytea, $9::bytea, $10::bytea,
                    $11::text, $12::timestamptz, $12::timestamptz
             from t
         )",
        note.id.uuid(),
        note.status.as_str(),
        Json(&note.items) as _,
        note.priority.as_str(),
        note.remark,
        note.email.as_ref().map(Sealed::bytes),
        note.phone.as_ref().map(Sealed::bytes),
        note.email_index.as_ref().map(BlindIndex::bytes),
        note.created_by,
        note.created_at
    );
    statements.create(permit, &record, statement).await
}
