//! `POST /v1/exports`: the rows of a period as a CSV file (CRYPTO-09), for a service that lists
//! [`Exports`] among its operations. The service says which rows there are ([`ExportRows`]).
//!
//! Counts the rows, records the export in the audit trail, then streams the file page by page
//! ([`stream`]). [`csv`] neutralises formulas. The file is encrypted if the caller names a
//! recipient.

mod csv;
mod schema;
mod stream;

use std::{fmt::Debug, marker::PhantomData, sync::Arc};

use chrono::{DateTime, Utc};
use poem::{Body, Result};
use poem_openapi::{
    OpenApi, Tags,
    payload::Binary,
    types::{ParseFromJSON, ToJSON},
};

use crate::{
    authz::{Action, Permit},
    db::DbError,
    http::{Context, strict_json::StrictJson, text::Text},
    problem::{Kind, Problem},
    store::{Database, Period, Position},
    telemetry::event,
};
pub use csv::Cell;
use schema::{Exported, NewExport};
use stream::{Export, FileEncoder};

/// The group of the operation in the OpenAPI document.
#[derive(Tags)]
enum Tag {
    /// Files with the rows of a period.
    Exports,
}

/// The kinds of rows that a service exports: an enumeration of the request.
pub trait ExportRows: ParseFromJSON + ToJSON + Copy + Debug + Send + Sync + 'static {
    /// The action of the operation `createExport` in the service's route matrix.
    type Action: Action;

    /// The kind in the example of the document.
    const EXAMPLE: Self;

    /// The name of the kind: in the audit trail, in events, and in the name of the file. Letters
    /// `a` to `z`.
    fn name(self) -> &'static str;

    /// The header line.
    fn columns(self) -> &'static [&'static str];

    /// Counts the rows of a period, up to `limit`.
    fn count(
        self,
        database: &Database,
        permit: &Permit<Self::Action>,
        period: Period,
        limit: i64,
    ) -> impl Future<Output = Result<i64, DbError>> + Send;

    /// Reads a page of at most `limit` rows after `position`, from `from` or later, newest first.
    fn page(
        self,
        database: &Database,
        permit: &Permit<Self::Action>,
        from: DateTime<Utc>,
        position: Position,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<ExportRow>, DbError>> + Send;
}

/// A row of an export.
#[derive(Debug)]
pub struct ExportRow {
    /// Its position among the rows: the next page begins after it.
    pub position: Position,
    /// One cell for each column.
    pub cells: Vec<Cell>,
}

/// Operation that exports rows of the kinds `K`.
pub struct Exports<K> {
    context: Arc<Context>,
    kinds: PhantomData<fn() -> K>,
}

impl<K> Exports<K> {
    /// The operation for one server.
    #[must_use]
    pub fn new(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context), kinds: PhantomData }
    }
}

#[OpenApi(tag = "Tag::Exports")]
impl<K: ExportRows> Exports<K> {
    /// Export rows
    ///
    /// Streams the rows of a period as a CSV file, optionally encrypted with age. Each row shows its state when it is read. Fails with 422 (`too_many_rows`) above the row
    /// limit of the service (1,000,000 by default). The start is in the audit trail; the number of
    /// rows sent is logged, even if the download breaks off.
    #[oai(path = "/v1/exports", method = "post", operation_id = "createExport")]
    async fn create(&self, permit: &Permit<K::Action>, body: StrictJson<NewExport<K>>) -> Result<Exported> {
        let new_export = body.value;
        let kind = new_export.kind;
        let period = new_export.period()?;
        let recipient = new_export.recipient()?;
        let max_rows = i64::from(self.context.max_export_rows);
        let rows = kind.count(&self.context.database, permit, period, max_rows + 1).await?;
        if rows > max_rows {
            return Err(Problem::new(Kind::Unprocessable).at("/from", "too_many_rows").into());
        }
        let encoder = FileEncoder::new(recipient.as_ref()).map_err(|error| {
            tracing::error!(%error, "could not encrypt an export");
            Problem::new(Kind::Internal)
        })?;
        self.context.database.record(permit, kind.name()).await?;
        event::data_export_started(permit.principal().subject(), &permit.tenant().to_string(), kind.name(), rows);
        let export = Export::new(Arc::clone(&self.context), permit.for_stream(), kind, period, encoder);
        let body = Binary(Body::from_bytes_stream(export.into_stream()));
        let attachment = |suffix: &str| Text::from(format!("attachment; filename=\"{}.csv{suffix}\"", kind.name()));
        Ok(match recipient {
            None => Exported::Plain(body, attachment("")),
            Some(_) => Exported::Encrypted(body, attachment(".age")),
        })
    }
}
