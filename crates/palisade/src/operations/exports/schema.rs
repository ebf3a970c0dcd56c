//! Schemas of exports: the request, its conversion to domain types, and the two kinds of file
//! (CRYPTO-09).

use chrono::{DateTime, TimeZone as _, Utc};
use poem::Body;
use poem_openapi::{ApiResponse, Object, payload::Binary, types::Example};

use super::ExportRows;
use crate::{
    crypto::Recipient,
    http::text::{Text, formats},
    problem::{Kind, Problem},
    store::Period,
};

/// Export to create.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct NewExport<K: ExportRows> {
    /// Kind of rows to export.
    pub(super) kind: K,
    /// Start of the period, inclusive (RFC 3339).
    from: DateTime<Utc>,
    /// End of the period, exclusive (RFC 3339). Must be after `from`, else 422 (`not_after_from`).
    to: DateTime<Utc>,
    /// Public key that the file is encrypted to: an X25519 recipient of age
    /// (age-encryption.org/v1), `age1…`. Omit it for a file in plain text. A wrong checksum fails
    /// with 422.
    #[oai(skip_serializing_if_is_none)]
    recipient: Option<Text<formats::AgeRecipient>>,
}

impl<K: ExportRows> Example for NewExport<K> {
    fn example() -> Self {
        let start = |year| Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).single().unwrap_or_default();
        Self { kind: K::EXAMPLE, from: start(2026), to: start(2027), recipient: None }
    }
}

impl<K: ExportRows> NewExport<K> {
    pub(super) fn period(&self) -> Result<Period, Problem> {
        if self.from >= self.to {
            return Err(Problem::new(Kind::Unprocessable).at("/to", "not_after_from"));
        }
        Ok(Period { from: self.from, to: self.to })
    }

    /// Parses the recipient. The published pattern cannot check the checksum, so this may fail.
    pub(super) fn recipient(&self) -> Result<Option<Recipient>, Problem> {
        let parsed = self.recipient.as_deref().map(str::parse).transpose();
        parsed.map_err(|_| Problem::new(Kind::Unprocessable).at("/recipient", "invalid"))
    }
}

/// The exported file.
#[derive(ApiResponse)]
pub(super) enum Exported {
    /// CSV file, encrypted with age (age-encryption.org/v1).
    #[oai(status = 200, content_type = "application/octet-stream")]
    Encrypted(
        Binary<Body>,
        /// File name for browsers (RFC 6266).
        #[oai(header = "Content-Disposition")]
        Text<formats::Attachment>,
    ),
    /// CSV file (RFC 4180) in UTF-8 with a header line, newest rows first. Text that a spreadsheet
    /// would run as a formula is prefixed with an apostrophe. With a `recipient` the same file,
    /// encrypted with age, as `application/octet-stream`. If the export fails, the connection is
    /// closed before the end of the file.
    #[oai(status = 200, content_type = "text/csv; charset=utf-8")]
    Plain(
        Binary<Body>,
        /// File name for browsers (RFC 6266).
        #[oai(header = "Content-Disposition")]
        Text<formats::Attachment>,
    ),
}
