//! The rows of exports: notes, selected by time of creation.

use chrono::{DateTime, Utc};
use palisade::{
    authz::Permit,
    operations::{Cell, ExportRow, ExportRows},
    store::{Database, DbError, Period, Position},
};
use poem_openapi::Enum;

use crate::{
    access::actions::CreateExport,
    store::{self, ExportedNote},
};

/// Kind of export: `notes`, selected by time of creation.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[oai(rename_all = "camelCase")]
pub(crate) enum ExportKind {
    Notes,
}

impl ExportRows for ExportKind {
    type Action = CreateExport;

    const EXAMPLE: Self = Self::Notes;

    fn name(self) -> &'static str {
        "notes"
    }

    fn columns(self) -> &'static [&'static str] {
        &["id", "status", "priority", "remark", "createdBy", "createdAt"]
    }

    async fn count(
        self,
        database: &Database,
        permit: &Permit<CreateExport>,
        period: Period,
        limit: i64,
    ) -> Result<i64, DbError> {
        store::count(database, permit, period, limit).await
    }

    async fn page(
        self,
        database: &Database,
        permit: &Permit<CreateExport>,
        from: DateTime<Utc>,
        position: Position,
        limit: i64,
    ) -> Result<Vec<ExportRow>, DbError> {
        Ok(store::exported(database, permit, from, position, limit).await?.iter().map(row).collect())
    }
}

fn row(note: &ExportedNote) -> ExportRow {
    let cells = vec![
        Cell::value(&note.id),
        Cell::text(&note.status),
        Cell::text(&note.priority),
        note.remark.as_deref().map_or_else(Cell::empty, Cell::text),
        Cell::text(&note.created_by),
        Cell::time(note.created_at),
    ];
    ExportRow { position: Position { at: note.created_at, id: note.id }, cells }
}
