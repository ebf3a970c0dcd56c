//! Events of browser sessions (AUTHN-14, AUTHN-15, AUTHN-16), which [`crate::authn`] raises.

use std::net::IpAddr;

use super::super::{RequestTelemetry, metrics};

/// A person signed in with a browser.
pub(crate) fn session_created(subject: &str, tenant: &str, session: &str, source: IpAddr) {
    raise!(info, "session_created", subject, tenant, session, %source, "browser session opened");
}

/// The cookie of a browser session was replaced.
pub(crate) fn session_renewed(subject: &str, tenant: &str, session: &str) {
    raise!(info, "session_renewed", subject, tenant, session, "browser session refreshed");
}

/// A browser session was ended: `logout`, `issuer`, `new_sign_in`, `revoked`.
pub(crate) fn session_ended(subject: &str, tenant: &str, session: &str, reason: &'static str) {
    raise!(info, "session_ended", subject, tenant, session, reason, "browser session ended");
}

/// A cookie that was replaced before is used again: it was stolen, or the new one was. The session
/// ends (AUTHN-15).
pub(crate) fn session_reused(subject: &str, tenant: &str, session: &str, source: IpAddr) {
    raise!(error, "session_reused", subject, tenant, session, %source, "replaced session cookie used; session ended");
}

/// A browser session is used from another network, or with another user agent.
pub(crate) fn session_client_changed(
    subject: &str,
    tenant: &str,
    session: &str,
    changed: &'static str,
    source: IpAddr,
) {
    raise!(warn, "session_client_changed", subject, tenant, session, changed, %source, "browser of a session changed");
}

/// The issuer signed out a session or a person: the revoked value.
pub(crate) fn issuer_logout(kind: &str, value: &str, source: IpAddr) {
    raise!(info, "issuer_logout", kind, value, %source, "signed out at the issuer");
}
