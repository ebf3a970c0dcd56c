//! `tenant export`: everything that a tenant owns, or the data of one person, in a file that is
//! encrypted with age (CRYPTO-09).
//!
//! Lines of JSON: a header, one line for each row with its table, and the number of rows. A file that
//! broke off does not decrypt. The command writes a file, the internal listener a response.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use clap::Args;
use futures_util::{Stream, stream};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::{TenantError, check_reason};
use crate::{
    crypto::{AgeEncryptor, Recipient},
    db::DbError,
    model::{Clock, TenantId},
    settings::Settings,
    store::{
        RegisteredTable,
        maintenance::{self, ExportSubject, Maintenance, Operator, TenantExport},
    },
    telemetry::event,
};

/// An export of a tenant.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportTenant {
    /// UUID of the tenant
    pub tenant: Uuid,
    /// The recipient of age (`age1…`) that can decrypt the file
    #[arg(long)]
    pub to: String,
    /// Only this row and the rows that refer to it, such as `customers/<id>`: the data of a person
    #[arg(long)]
    pub subject: Option<String>,
    /// Reason, recorded in the audit trail
    #[arg(long)]
    pub reason: String,
    /// The file to create
    #[serde(skip)]
    pub file: PathBuf,
}

/// An export whose start is in the audit trail.
pub struct StartedExport {
    export: TenantExport,
    /// `None` when the file is complete.
    encryptor: Option<AgeEncryptor>,
    header: Option<Vec<u8>>,
}

impl ExportTenant {
    /// Records the export in the audit trail, and opens a snapshot of the data.
    pub async fn start(
        &self,
        database: &Maintenance,
        login: &SecretString,
        actor: &str,
        now: &Clock,
    ) -> Result<StartedExport, TenantError> {
        check_reason(&self.reason).map_err(TenantError::Invalid)?;
        let recipient: Recipient = self.to.parse().map_err(|_| TenantError::Invalid("expected an age recipient"))?;
        let subject = self.subject.as_deref().map(str::parse::<ExportSubject>).transpose();
        let subject = subject.map_err(TenantError::Invalid)?;
        let tenant = TenantId::from_uuid(self.tenant);
        let mut operator = Operator::connect_for(login, actor).await?;
        let entry = operator.find_tenant(tenant).await?;
        let entry = entry.ok_or(TenantError::Invalid("the tenant is unknown; `tenant list` shows all"))?;
        let export = database.export_tenant(tenant, subject.as_ref()).await.map_err(|error| match error {
            DbError::Inconsistent => TenantError::Invalid("there is no such table of tenants"),
            error => error.into(),
        })?;
        let object = subject.as_ref().map_or_else(|| tenant.to_string(), ExportSubject::to_string);
        operator.record_tenant_export(tenant, &object, &self.reason).await?;
        event::tenant_changed("export", &tenant.to_string(), actor, &self.reason);
        let header = json!({ "export": {
            "tenant": tenant.to_string(), "name": entry.name, "subject": self.subject, "at": now.now().to_rfc3339(),
        } });
        let encryptor = AgeEncryptor::new(&recipient).map_err(|_| TenantError::Invalid("cannot encrypt"))?;
        let header = Some(format!("{header}\n").into_bytes());
        Ok(StartedExport { export, encryptor: Some(encryptor), header })
    }

    /// Writes the file of the command line.
    pub async fn write(
        &self,
        settings: &Settings,
        sealed: &[RegisteredTable],
        login: &SecretString,
        clock: &Clock,
    ) -> Result<String, TenantError> {
        let (_, database) = maintenance::open(settings, sealed, clock.clone())?;
        database.validate().await?;
        let failed = |error| TenantError::File(self.file.clone(), error);
        let mut export = self.start(&database, login, "", clock).await?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file);
        let mut file = file.map_err(failed)?;
        while let Some(chunk) = export.next_chunk().await.map_err(failed)? {
            file.write_all(&chunk).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        Ok(format!("{}: exported to {}, encrypted", self.tenant, self.file.display()))
    }
}

impl StartedExport {
    /// The next bytes of the file; `None` after the last.
    async fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let lines = match self.header.take() {
                Some(header) => Some(header),
                None => self.export.next_lines().await.map_err(io::Error::other)?,
            };
            let Some(encryptor) = &mut self.encryptor else { return Ok(None) };
            let chunk = match lines {
                Some(lines) => encryptor.add(&lines),
                None => self.encryptor.take().map_or(Ok(Vec::new()), AgeEncryptor::finish),
            };
            let chunk = chunk.map_err(io::Error::other)?;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// The bytes of a response. An error closes the connection.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Vec<u8>>> + Send {
        stream::try_unfold(self, |mut export| async move {
            let chunk = export.next_chunk().await.inspect_err(|error| tracing::error!(%error, "export aborted"));
            chunk.map(|chunk| chunk.map(|chunk| (chunk, export)))
        })
    }
}

impl std::fmt::Debug for StartedExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartedExport").field("export", &self.export).finish_non_exhaustive()
    }
}
