//! The demo data of the command `dev`: three notes of each demo tenant. Tests use the same data.

use chrono::TimeDelta;
use palisade::{
    Demo, DemoError, DemoKeys, Request, SeedFuture, Stack,
    crypto::{BlindIndex, Sealed},
    dev,
    model::{Clock, TenantId},
    store::{Json, SealedTable as _},
};
use sqlx::PgConnection;
use uuid::{Uuid, uuid};

use crate::{
    domain::{Item, NewNote, NoteId, Priority},
    store::{Note, NoteTable},
};

/// The demo data of this service.
pub const DEMO: Demo = Demo {
    seed: |tx, keys, tenant, number| -> SeedFuture<'_> { Box::pin(seed(tx, keys, tenant, number)) },
    requests,
    scopes: "notes:read,notes:write",
    list: "/v1/notes?limit=2",
    files: &[],
};

/// A note of the first tenant; always exists.
pub const FIRST_NOTE: Uuid = uuid!("0190a001-0000-7000-8000-000000000001");

/// E-mail address and phone of each note.
const NOTES: [(&str, &str); 3] = [
    ("billing@initech.example", "+493012345678"),
    ("accounts@hooli.example", "+33142685300"),
    ("ada@example.com", "+442079460000"),
];

/// Adds the notes, unless demo notes exist. Ids begin with 0190a00N; N is the tenant's number.
async fn seed(owner: &mut PgConnection, keys: &DemoKeys, tenant: TenantId, number: u128) -> Result<(), DemoError> {
    let existing: i64 =
        sqlx::query_scalar("select count(*) from notes where created_by = 'demo'").fetch_one(&mut *owner).await?;
    if existing > 0 {
        return Ok(());
    }
    let indexes = dev::index_keys(owner, keys).await?;
    let data_key = dev::data_key(owner, keys, tenant).await?;
    for (n, (email, phone)) in (1_u32..).zip(NOTES) {
        let id = Uuid::from_u128((0x0190_a000 + number) << 96 | 0x7000_8000 << 48 | u128::from(n));
        let note = NewNote {
            items: vec![Item { code: "PAPER-A4".to_owned(), count: 2 }],
            priority: Priority::Standard,
            remark: None,
            email: Some(email.parse()?),
            phone: Some(phone.parse()?),
        };
        let key = data_key.new_row_key(NoteTable::TABLE, id)?;
        let at = Clock::system().now() - TimeDelta::days(i64::from(10 - n));
        insert(owner, &Note::new(NoteId::from_uuid(id), note, key, &indexes, tenant, "demo", at)?).await?;
    }
    Ok(())
}

async fn insert(owner: &mut PgConnection, note: &Note) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with n as (
             insert into notes (tenant_id, id, status, items, priority, email, phone, email_index, created_by,
                                created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
         )
         insert into palisade.row_keys (tenant_id, sealed_table, row_id, data_key, wrapped, index_key)
         values ($1, 'notes', $2, $11, $12, $13)",
    )
    .bind(note.tenant.uuid())
    .bind(note.id.uuid())
    .bind(note.status.as_str())
    .bind(Json(&note.items))
    .bind(note.priority.as_str())
    .bind(note.email.as_ref().map(Sealed::bytes))
    .bind(note.phone.as_ref().map(Sealed::bytes))
    .bind(note.email_index.as_ref().map(BlindIndex::bytes))
    .bind(&note.created_by)
    .bind(note.created_at)
    .bind(note.key.data_key_version())
    .bind(note.key.wrapped())
    .bind(i32::from(note.index_key))
    .execute(owner)
    .await?;
    Ok(())
}

/// Requests to try.
fn requests(stack: &Stack<'_>) -> Vec<Request> {
    let base = stack.base;
    let viewer = stack.auth("acme-viewer");
    let request = |status, meaning, arguments| Request { status, meaning, arguments };
    vec![
        request("200", "list notes", format!("{viewer} '{base}/v1/notes?limit=2'")),
        request("200", "read a note; personal data is masked", format!("{viewer} {base}/v1/notes/{FIRST_NOTE}")),
        request("401", "no token", format!("{base}/v1/notes")),
    ]
}
