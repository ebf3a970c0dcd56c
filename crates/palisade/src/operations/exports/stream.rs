//! The stream behind an export: reads, encodes and encrypts one page of rows at a time (CRYPTO-09).
//!
//! The next page is read when the caller has taken the previous one. So memory stays bounded, and
//! no connection is held while the caller reads slowly. When the stream ends or is dropped, the
//! number of rows sent is logged.

use std::{io, sync::Arc};

use futures_util::{Stream, stream};

use super::{ExportRows, csv::encode};
use crate::{
    authz::Permit,
    crypto::{AgeEncryptor, AgeError, Recipient},
    http::Context,
    store::{Period, Position},
    telemetry::{RequestTelemetry, event},
};

/// Rows per page.
const PAGE_ROWS: i64 = 1_000;

/// Turns CSV text into the bytes of the file.
pub(super) enum FileEncoder {
    Plain,
    Encrypted(Box<AgeEncryptor>),
}

impl FileEncoder {
    pub(super) fn new(recipient: Option<&Recipient>) -> Result<Self, AgeError> {
        Ok(match recipient {
            None => Self::Plain,
            Some(recipient) => Self::Encrypted(Box::new(AgeEncryptor::new(recipient)?)),
        })
    }

    fn encode(&mut self, text: Vec<u8>) -> Result<Vec<u8>, AgeError> {
        match self {
            Self::Plain => Ok(text),
            Self::Encrypted(encryptor) => encryptor.add(&text),
        }
    }

    fn finish(self) -> Result<Vec<u8>, AgeError> {
        match self {
            Self::Plain => Ok(Vec::new()),
            Self::Encrypted(encryptor) => encryptor.finish(),
        }
    }
}

/// An export in progress.
pub(super) struct Export<K: ExportRows> {
    context: Arc<Context>,
    kind: K,
    period: Period,
    /// Start of the next page; `None` after the last.
    next: Option<Position>,
    /// `None` when the file is finished.
    encoder: Option<FileEncoder>,
    audit: ExportAudit<K>,
}

/// Logs the number of rows sent when it is dropped, however the export ends.
struct ExportAudit<K: ExportRows> {
    permit: Permit<K::Action>,
    kind: K,
    rows: usize,
    complete: bool,
    /// The request of the export. Its response began before the stream ends, so the context is kept
    /// for the log lines.
    request: Option<RequestTelemetry>,
}

impl<K: ExportRows> Drop for ExportAudit<K> {
    fn drop(&mut self) {
        let subject = self.permit.principal().subject();
        let tenant = self.permit.tenant().to_string();
        let log_end = || event::data_exported(subject, &tenant, self.kind.name(), self.rows, self.complete);
        match &self.request {
            Some(request) => request.run(log_end),
            None => log_end(),
        }
    }
}

impl<K: ExportRows> Export<K> {
    pub(super) fn new(
        context: Arc<Context>,
        permit: Permit<K::Action>,
        kind: K,
        period: Period,
        encoder: FileEncoder,
    ) -> Self {
        let audit = ExportAudit { permit, kind, rows: 0, complete: false, request: RequestTelemetry::current() };
        Self { context, kind, period, next: Some(Position::before(period.to)), encoder: Some(encoder), audit }
    }

    /// The chunks of the file. An error closes the connection, so that no caller takes a part for
    /// the whole file.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Vec<u8>>> + Send {
        stream::try_unfold(self, |mut export| async move {
            match export.audit.request.clone() {
                Some(request) => request.scope(export.next_chunk()).await,
                None => export.next_chunk().await,
            }
            .map(|chunk| chunk.map(|chunk| (chunk, export)))
        })
    }

    async fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.encode_chunk().await.inspect_err(|error| tracing::error!(%error, "export aborted"))
    }

    /// The next chunk that is not empty; `None` after the last.
    async fn encode_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(position) = self.next {
            let text = self.read_page(position).await?;
            let Some(encoder) = &mut self.encoder else { break };
            let chunk = encoder.encode(text).map_err(io::Error::other)?;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        if let Some(encoder) = self.encoder.take() {
            let rest = encoder.finish().map_err(io::Error::other)?;
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
        self.audit.complete = true;
        Ok(None)
    }

    /// Reads the page at `position` and sets the start of the next one.
    async fn read_page(&mut self, position: Position) -> io::Result<Vec<u8>> {
        let permit = &self.audit.permit;
        if !self.context.authenticator.still_accepts(permit.principal()) {
            return Err(io::Error::other("the caller was revoked during the export"));
        }
        let database = &self.context.database;
        let from = self.period.from;
        let is_first = self.audit.rows == 0;
        let rows = self.kind.page(database, permit, from, position, PAGE_ROWS).await.map_err(io::Error::other)?;
        let page_rows = rows.len();
        let last = rows.last().map(|row| row.position);
        let header = is_first.then(|| self.kind.columns());
        let text = encode(header, rows.into_iter().map(|row| row.cells));
        self.audit.rows += page_rows;
        // The rows were counted at the start; rows added since count against the limit too.
        if u32::try_from(self.audit.rows).map_or(true, |rows| rows > self.context.max_export_rows) {
            return Err(io::Error::other("the row limit was exceeded during the export"));
        }
        self.next = last.filter(|_| i64::try_from(page_rows).is_ok_and(|rows| rows == PAGE_ROWS));
        text.map_err(io::Error::other)
    }
}
