//! Origins of pages that may call the API from a browser: the values of `APP_HTTP__CORS_ORIGINS`.
//!
//! An origin is compared with the header `Origin` byte by byte, so the setting must spell it as
//! browsers do (AUTHZ-10).

use std::str::FromStr;

use http::HeaderValue;
use url::Url;

/// An origin as browsers send it (RFC 6454 section 6.2): scheme, host, and port unless it is the
/// default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub(super) url: Url,
    header: HeaderValue,
}

impl Origin {
    /// The value of the header `Origin`.
    #[must_use]
    pub const fn header(&self) -> &HeaderValue {
        &self.header
    }
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_exact = |url: &Url| {
            let has_scheme = matches!(url.scheme(), "https" | "http");
            has_scheme && !text.contains('*') && url.origin().ascii_serialization() == text
        };
        let url = Url::parse(text).ok().filter(is_exact);
        let parts = url.and_then(|url| Some(Self { url, header: HeaderValue::from_str(text).ok()? }));
        parts.ok_or(
            "must be an exact origin as browsers send it, such as `https://app.example.com`: no path, no final slash, \
             no default port, no wildcard",
        )
    }
}
