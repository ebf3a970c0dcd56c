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

/// A kind of unsafe values, which production accepts if the operator names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Risk(pub(super) &'static str);

impl Risk {
    pub(super) const WORDS: [&str; 6] =
        ["http_public_url", "wide_proxies", "trace_logs", "long_tokens", "stale_revocations", "stale_keys"];

    /// What may happen.
    pub(super) fn danger(self) -> &'static str {
        match self.0 {
            "http_public_url" => "tokens travel unencrypted",
            "wide_proxies" => "every host of a network wider than /24 (IPv6 /64) can name any client address",
            "trace_logs" => "libraries may write secrets to lines of level `trace`",
            "long_tokens" => "a stolen token is valid for more than 7200 s",
            "stale_revocations" => "revoked credentials are accepted for more than 300 s",
            _ => "a key that the issuer withdrew is accepted for more than an hour",
        }
    }
}

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

/// Attribute `SameSite` of the session cookie (RFC 6265bis section 4.1.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Sent with a link from another site, but not with its other requests.
    Lax,
    /// Never sent with a request from another site.
    Strict,
}

/// Whether tokens of an issuer are bound to a key of the client (DPoP, RFC 9449).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dpop {
    /// Bound tokens are rejected.
    Off,
    /// Bound tokens need a proof; others are accepted too.
    Optional,
    /// Every token must be bound.
    Required,
}

/// The reaction to revocations that could not be loaded in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStaleFeed {
    /// Calls with a credential get 503.
    Refuse,
    /// The last loaded revocations apply; a credential that was revoked since is accepted.
    Serve,
}

/// A signature algorithm (RFC 7518, RFC 8037, RFC 9864) by its registered name. There is no
/// symmetric one, and no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignatureAlgorithm(pub(super) &'static str);

impl SignatureAlgorithm {
    pub(super) const WORDS: [&str; 10] =
        ["ES256", "ES384", "EdDSA", "Ed25519", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];

    /// The algorithm of this name, in this spelling.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::WORDS.into_iter().find(|word| *word == name).map(Self)
    }

    /// The registered name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}
