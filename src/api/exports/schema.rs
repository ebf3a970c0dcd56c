use chrono::{DateTime, TimeZone as _, Utc};
use poem::Body;
use poem_openapi::{ApiResponse, Enum, Object, payload::Binary, types::Example};

use crate::{
    api::text::{Text, form},
    crypto::Recipient,
    problem::{Kind, Problem},
    store::Period,
};

/// What is taken out.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[oai(rename_all = "camelCase")]
pub(super) enum ExportKind {
    /// Orders by the time they were placed.
    Orders,
    /// Invoices by the time they were issued.
    Invoices,
}

impl ExportKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Invoices => "invoices",
        }
    }
}

/// What to take out of the books.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct NewExport {
    /// What is taken out.
    pub(super) kind: ExportKind,
    /// The first moment that counts.
    from: DateTime<Utc>,
    /// The first one that does not count any more.
    to: DateTime<Utc>,
    /// Whom the file is encrypted to: a recipient of age, of the X25519 kind. Without one it is plain.
    #[oai(skip_serializing_if_is_none)]
    recipient: Option<Text<form::AgeRecipient>>,
}

impl Example for NewExport {
    fn example() -> Self {
        let start = |year| Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).single().unwrap_or_default();
        Self { kind: ExportKind::Orders, from: start(2026), to: start(2027), recipient: None }
    }
}

impl NewExport {
    pub(super) fn period(&self) -> Result<Period, Problem> {
        if self.from >= self.to {
            return Err(Problem::new(Kind::Unprocessable).at("/to", "not_after_from"));
        }
        Ok(Period { from: self.from, to: self.to })
    }

    /// Whom it is for, if for somebody. The form has no checksum, so this may fail.
    pub(super) fn recipient(&self) -> Result<Option<Recipient>, Problem> {
        let parsed = self.recipient.as_deref().map(str::parse).transpose();
        parsed.map_err(|_| Problem::new(Kind::Unprocessable).at("/recipient", "invalid"))
    }
}

/// The file.
#[derive(ApiResponse)]
pub(super) enum Exported {
    /// The same, encrypted in the format of age.
    #[oai(status = 200, content_type = "application/octet-stream")]
    Encrypted(
        Binary<Body>,
        /// How a browser keeps it.
        #[oai(header = "Content-Disposition")]
        Text<form::Attachment>,
    ),
    /// Comma-separated values (RFC 4180) in UTF-8, newest first, with a line of names before. A text that a spreadsheet
    /// would run has an apostrophe before it. With a recipient the same in the format of age, as
    /// `application/octet-stream`. If something fails on the way, the connection breaks off.
    #[oai(status = 200, content_type = "text/csv; charset=utf-8")]
    Plain(
        Binary<Body>,
        /// How a browser keeps it.
        #[oai(header = "Content-Disposition")]
        Text<form::Attachment>,
    ),
}
