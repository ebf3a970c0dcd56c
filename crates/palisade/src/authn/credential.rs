//! Extracts the one credential of a request from its headers (AUTHN-08).
//!
//! Accepts `Authorization: Bearer` (RFC 6750 section 2.1) or `DPoP` (RFC 9449 section 7.1),
//! `X-API-Key` or the cookie of a browser session. Rejects requests with two credentials, or with a
//! token in the query string. It is the authenticator's first step.

use http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::{
    ConnectionInfo, RejectReason,
    api_keys::{Presented, presented},
    sessions,
};

/// Cookies that could hold a credential. Beside a header credential they count as a second one.
const CREDENTIAL_COOKIES: [&str; 2] = ["__Host-session", "access_token"];

/// The parts of a request that can hold a credential.
#[derive(Clone, Copy, Debug)]
pub struct RequestCredentials<'r> {
    /// The request's header fields.
    pub headers: &'r HeaderMap,
    /// The request's method.
    pub method: &'r Method,
    /// The request's target. A credential in its query is rejected.
    pub uri: &'r Uri,
    /// The connection, with its client certificate.
    pub connection: &'r ConnectionInfo,
}

impl RequestCredentials<'_> {
    /// The kind of credential, as a metric label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.headers.contains_key(header::AUTHORIZATION) {
            "token"
        } else if presented(self.headers).next().is_some() {
            "api_key"
        } else if sessions::presented(self.headers).next().is_some() {
            "session"
        } else if self.connection.certificate.is_some() {
            "certificate"
        } else {
            "none"
        }
    }
}

/// A credential as it was received. Nothing of it is verified.
#[derive(Clone, Copy)]
pub(super) enum Credential<'h> {
    /// An access token.
    Token(Token<'h>),
    /// An API key.
    ApiKey(Presented<'h>),
    /// The cookie of a browser session.
    Session(sessions::Presented<'h>),
}

/// An access token, and the scheme under which it came.
#[derive(Clone, Copy)]
pub(super) struct Token<'h> {
    pub(super) text: &'h str,
    pub(super) scheme: Scheme,
}

/// The scheme of an `Authorization` field. Letter case does not count (RFC 9110 section 11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// All who have the token may use it.
    Bearer,
    /// The caller proves that it has the key of the token.
    Dpop,
}

/// Extracts the credential; `None` if the request has none.
///
/// A token in the query string is rejected: every log on the way has it already (RFC 9700
/// section 4.3.2). Two credentials are rejected: two components could each act on a different one.
pub(super) fn extract<'h>(
    headers: &'h HeaderMap,
    query: &str,
    max_token_bytes: usize,
) -> Result<Option<Credential<'h>>, RejectReason> {
    let tokens = headers.get_all(header::AUTHORIZATION);
    let in_query = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "access_token").count();
    let in_headers = tokens.iter().count() + presented(headers).count();
    match (in_query, in_headers) {
        (0, 0 | 1) => {}
        (1, 0) => return Err(RejectReason::InQuery),
        _ => return Err(RejectReason::TwoCredentials),
    }
    let credential = match (tokens.iter().next(), presented(headers).next()) {
        (Some(value), _) => Credential::Token(parse_token(value, max_token_bytes)?),
        (None, Some(key)) => Credential::ApiKey(key),
        (None, None) => {
            let mut cookies = sessions::presented(headers);
            return match (cookies.next(), cookies.next()) {
                (cookie, None) => Ok(cookie.map(Credential::Session)),
                _ => Err(RejectReason::TwoCredentials),
            };
        }
    };
    if has_credential_cookie(headers) {
        return Err(RejectReason::TwoCredentials);
    }
    Ok(Some(credential))
}

/// Parses the value of an `Authorization` field.
fn parse_token(value: &HeaderValue, max_token_bytes: usize) -> Result<Token<'_>, RejectReason> {
    let value = value.to_str().map_err(|_| RejectReason::Malformed)?;
    let (scheme, text) = value.split_once(' ').ok_or(RejectReason::Malformed)?;
    let schemes = [("bearer", Scheme::Bearer), ("dpop", Scheme::Dpop)];
    let scheme = schemes.into_iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name));
    let (_, scheme) = scheme.ok_or(RejectReason::Malformed)?;
    if text.len() > max_token_bytes { Err(RejectReason::TooLong) } else { Ok(Token { text, scheme }) }
}

fn has_credential_cookie(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::COOKIE).iter();
    let mut pairs = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.any(|pair| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        CREDENTIAL_COOKIES.iter().any(|cookie| name.eq_ignore_ascii_case(cookie.as_bytes()))
    })
}
