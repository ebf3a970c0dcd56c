//! SQL of exports: the notes of a period, page by page, without personal fields (CRYPTO-09).

use chrono::{DateTime, Utc};
use palisade::{
    authz::Permit,
    store::{Database, DbError, Period, Position, clamp_time},
};
use uuid::Uuid;

use super::CountRow;
use crate::access::actions::CreateExport;

/// A note as an export holds it.
pub(crate) struct ExportedNote {
    pub(crate) id: Uuid,
    pub(crate) status: String,
    pub(crate) priority: String,
    pub(crate) remark: Option<String>,
    pub(crate) created_by: String,
    pub(crate) created_at: DateTime<Utc>,
}

/// Counts the notes of a period, up to `limit`.
pub(crate) async fn count(
    database: &Database,
    permit: &Permit<CreateExport>,
    period: Period,
    limit: i64,
) -> Result<i64, DbError> {
    let statement = palisade::read_one!(
        permit,
        CountRow,
        r#"select count(*) as "count!" from (
               select from notes where tenant_id = t.tenant and erased_at is null and created_at >= $2
                                   and created_at < $3 limit $4) n"#,
        clamp_time(period.from),
        clamp_time(period.to),
        limit
    );
    Ok(database.read_one(permit, statement).await?.map_or(0, |row| row.count))
}

/// Reads a page of at most `limit` notes after `position`, created at `from` or later, newest first.
pub(crate) async fn exported(
    database: &Database,
    permit: &Permit<CreateExport>,
    from: DateTime<Utc>,
    position: Position,
    limit: i64,
) -> Result<Vec<ExportedNote>, DbError> {
    let statement = palisade::read_one!(
        permit,
        ExportedNote,
        "select id, status, priority, remark, created_by, created_at
         from notes
         where tenant_id = t.tenant and erased_at is null and created_at >= $2 and (created_at, id) < ($3, $4)
         order by created_at desc, id desc limit $5",
        clamp_time(from),
        position.time(),
        position.id,
        limit
    );
    database.read_page(permit, statement).await
}
