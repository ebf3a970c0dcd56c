use thiserror::Error;

use crate::domain::ApiKeyId;

/// Why a credential is refused. For events and logs; the caller sees one opaque 401 for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Not one compact JWS with the members it must have, each once.
    #[error("malformed")]
    Malformed,
    /// Longer than 8 KiB.
    #[error("too_long")]
    TooLong,
    /// More than one credential (AUTHN-08).
    #[error("two_credentials")]
    TwoCredentials,
    /// A token in the query string, where every log on the way has seen it.
    #[error("in_query")]
    InQuery,
    /// An algorithm that is not allowed, or not the one of the key (AUTHN-03).
    #[error("algorithm")]
    Algorithm,
    /// A header parameter that could bring a key along or must be understood and is not (AUTHN-08).
    #[error("forbidden_header")]
    ForbiddenHeader,
    /// Not an access token (AUTHN-07).
    #[error("token_type")]
    TokenType,
    /// The issuer has no such key.
    #[error("unknown_key")]
    UnknownKey,
    /// The signature is not the issuer's (AUTHN-02).
    #[error("signature")]
    Signature,
    /// Another issuer (AUTHN-04).
    #[error("issuer")]
    Issuer,
    /// For another API (AUTHN-05).
    #[error("audience")]
    Audience,
    /// Past its end (AUTHN-06), a token's, an API key's or a certificate's.
    #[error("expired")]
    Expired,
    /// Not valid yet, or made in the future (AUTHN-06).
    #[error("not_yet_valid")]
    NotYetValid,
    /// Valid for longer than the cap (AUTHN-06), a token or a certificate.
    #[error("lifetime")]
    Lifetime,
    /// A claim is absent or of the wrong type.
    #[error("claims")]
    Claims,
    /// Bound to a certificate that was not shown, or to something else (RFC 8705, RFC 9449); or bound to none, where it
    /// must be.
    #[error("binding")]
    Binding,
    /// A certificate of nobody who is known, or of two (AUTHN-18).
    #[error("certificate")]
    Certificate,
    /// The issuer may not speak for the tenant; or a service calls for none.
    #[error("tenant")]
    Tenant,
    /// A client acts for itself that is not listed as one that may.
    #[error("service_client")]
    ServiceClient,
    /// The marks of the token do not show whether a user or a program calls (AUTHN-07).
    #[error("caller_kind")]
    CallerKind,
    /// Revoked before its end (AUTHN-11).
    #[error("revoked")]
    Revoked,
    /// Not the text of an API key: its checksum or its form is wrong.
    #[error("api_key_format")]
    ApiKeyFormat,
    /// There is no such API key.
    #[error("api_key_unknown")]
    ApiKeyUnknown,
    /// Another secret than the API key's.
    #[error("api_key_secret")]
    ApiKeySecret,
}

impl Refused {
    /// Whether it counts as a failure (AUTHN-17). What was revoked does not, nor a token that ended: it was good once,
    /// costs no hash, and honest clients learn from the refusal that it is time for another. That an API key ended is
    /// known to whoever made it.
    pub(super) fn is_suspicious(self, key: Option<ApiKeyId>) -> bool {
        self != Self::Revoked && (self != Self::Expired || key.is_some())
    }
}
