//! The books as a file (control CRYPTO-09).

mod csv;
mod schema;
mod stream;

use std::sync::Arc;

use poem::{Body, Result};
use poem_openapi::{OpenApi, payload::Binary};

use super::{Context, Tag, strict_json::StrictJson, text::Text};
use crate::{
    authz::{Permit, actions::CreateExport},
    problem::{Kind, Problem},
    telemetry::event,
};
use schema::{ExportKind, Exported, NewExport};
use stream::{Export, File};

/// Taking the books out.
pub(super) struct Exports(pub(super) Arc<Context>);

#[OpenApi(tag = "Tag::Billing")]
impl Exports {
    /// Take the books out as a file
    ///
    /// Each row is as it is when it is read. Whoever wants the file to be readable by one person only names an age
    /// recipient. Who took how many rows is noted, whether or not all of them arrived.
    #[oai(path = "/v1/exports", method = "post", operation_id = "createExport")]
    async fn create(&self, permit: Permit<CreateExport>, body: StrictJson<NewExport>) -> Result<Exported> {
        let wanted = body.value;
        let (period, recipient, kind) = (wanted.period()?, wanted.recipient()?, wanted.kind);
        let most = i64::from(self.0.max_export_rows);
        let rows = match kind {
            ExportKind::Orders => self.0.database.count_orders(&permit, period, most + 1).await?,
            ExportKind::Invoices => self.0.database.count_invoices(&permit, period, most + 1).await?,
        };
        if rows > most {
            return Err(Problem::new(Kind::Unprocessable).at("/from", "too_many_rows").into());
        }
        let file = File::new(recipient.as_ref()).map_err(|error| {
            tracing::error!(%error, "cannot encrypt an export");
            Problem::new(Kind::Internal)
        })?;
        self.0.database.write_down_export(&permit, kind.as_str()).await?;
        event::export_started(permit.principal().subject(), &permit.tenant().to_string(), kind.as_str(), rows);
        let export = Export::new(Arc::clone(&self.0), permit, (kind, period), file);
        let body = Binary(Body::from_bytes_stream(export.into_stream()));
        let name = |end: &str| Text::from(format!("attachment; filename=\"{}.csv{end}\"", kind.as_str()));
        Ok(match recipient {
            None => Exported::Plain(body, name("")),
            Some(_) => Exported::Encrypted(body, name(".age")),
        })
    }
}
