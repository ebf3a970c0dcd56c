//! Settings that are one of a few words. `value.rs` has the words.

/// How strict the checks of settings are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Refuses every unsafe configuration.
    #[default]
    Production,
    /// Allows plain HTTP to an issuer and a database without TLS, for one machine only.
    Development,
}

/// The word of a kind of unsafe value that production accepts if the operator names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Risk(pub(super) &'static str);

/// The header in which proxies write the client address. Only the configured one is read: the
/// caller may have written the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
}

/// The reaction to revocations that could not be loaded in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStaleFeed {
    /// Calls with a credential get 503.
    Refuse,
    /// The last loaded revocations apply; a credential that was revoked since is accepted.
    Serve,
}
