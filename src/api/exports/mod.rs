//! `POST /v1/exports`: the orders or invoices of a period as a CSV file (CRYPTO-09).
//!
//! Counts the rows, records the export in the audit trail, then streams the file page by page
//! ([`stream`]). [`csv`] neutralises formulas. The file is encrypted if the caller names a
//! recipient.

mod csv;
mod schema;
mod stream;

use std::sync::Arc;

use poem::{Body, Result};
use poem_openapi::{OpenApi, payload::Binary};

use super::Tag;
use crate::{
    authz::{Permit, actions::CreateExport},
    http::{Context, strict_json::StrictJson, text::Text},
    problem::{Kind, Problem},
    telemetry::event,
};
use schema::{ExportKind, Exported, NewExport};
use stream::{Export, FileEncoder};

/// Operation that exports orders and invoices.
pub(super) struct Exports {
    pub(super) context: Arc<Context>,
}

#[OpenApi(tag = "Tag::Billing")]
impl Exports {
    /// Export orders or invoices
    ///
    /// Streams the orders or invoices of a period as a CSV file, optionally encrypted with age.
    /// Each row shows its state when it is read. Fails with 422 (`too_many_rows`) above the row
    /// limit of the service (1,000,000 by default). The start is in the audit trail; the number of
    /// rows sent is logged, even if the download breaks off.
    #[oai(path = "/v1/exports", method = "post", operation_id = "createExport")]
    async fn create(&self, permit: Permit<CreateExport>, body: StrictJson<NewExport>) -> Result<Exported> {
        let new_export = body.value;
        let kind = new_export.kind;
        let period = new_export.period()?;
        let recipient = new_export.recipient()?;
        let max_rows = i64::from(self.context.max_export_rows);
        let rows = match kind {
            ExportKind::Orders => self.context.database.count_orders(&permit, period, max_rows + 1).await?,
            ExportKind::Invoices => self.context.database.count_invoices(&permit, period, max_rows + 1).await?,
        };
        if rows > max_rows {
            return Err(Problem::new(Kind::Unprocessable).at("/from", "too_many_rows").into());
        }
        let encoder = FileEncoder::new(recipient.as_ref()).map_err(|error| {
            tracing::error!(%error, "could not encrypt an export");
            Problem::new(Kind::Internal)
        })?;
        self.context.database.record_export(&permit, kind.as_str()).await?;
        event::data_export_started(permit.principal().subject(), &permit.tenant().to_string(), kind.as_str(), rows);
        let export = Export::new(Arc::clone(&self.context), permit, kind, period, encoder);
        let body = Binary(Body::from_bytes_stream(export.into_stream()));
        let attachment = |suffix: &str| Text::from(format!("attachment; filename=\"{}.csv{suffix}\"", kind.as_str()));
        Ok(match recipient {
            None => Exported::Plain(body, attachment("")),
            Some(_) => Exported::Encrypted(body, attachment(".age")),
        })
    }
}
