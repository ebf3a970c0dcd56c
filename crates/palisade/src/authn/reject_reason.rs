//! Reasons for rejecting a credential. Their texts are codes in logs and security events.
//!
//! Callers see one opaque 401 for all of them. [`RejectReason::counts_as_failure`] decides which
//! ones the failure limiter counts (AUTHN-17).

use thiserror::Error;

use crate::model::ApiKeyId;

/// Why a credential is rejected. For logs and security events only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RejectReason {
    /// The `Authorization` field is not a bearer token, or the token is not a well-formed JWS.
    #[error("malformed")]
    Malformed,
    /// The token is longer than the settings allow.
    #[error("too_long")]
    TooLong,
    /// A list or an object in the token has more entries than the settings allow.
    #[error("too_broad")]
    TooBroad,
    /// The request has more than one credential (AUTHN-08).
    #[error("two_credentials")]
    TwoCredentials,
    /// The query string has a token, which is in the logs of every proxy by now (AUTHN-08).
    #[error("in_query")]
    InQuery,
    /// The algorithm is not on the allowlist, or is not the key's (AUTHN-03).
    #[error("algorithm")]
    Algorithm,
    /// A header parameter supplies a key, or requires an unsupported extension (AUTHN-08).
    #[error("forbidden_header")]
    ForbiddenHeader,
    /// The token is not an access token (AUTHN-07): the claim that shows it; empty for the header.
    #[error("token_type")]
    TokenType(&'static str),
    /// The token has no acceptable `kid`, or the issuer's JWKS has no key with that id.
    #[error("unknown_key")]
    UnknownKey,
    /// The signature does not verify with the issuer's key (AUTHN-02).
    #[error("signature")]
    Signature,
    /// The issuer is not trusted (AUTHN-04).
    #[error("issuer")]
    Issuer,
    /// The audience does not include this API (AUTHN-05).
    #[error("audience")]
    Audience,
    /// The token, API key or certificate has expired (AUTHN-06).
    #[error("expired")]
    Expired,
    /// `nbf` or `iat` is in the future (AUTHN-06).
    #[error("not_yet_valid")]
    NotYetValid,
    /// The lifetime of the token or certificate is negative or exceeds the maximum (AUTHN-06).
    #[error("lifetime")]
    Lifetime,
    /// A claim is absent, of the wrong type or invalid: its name, or what it says where the settings
    /// choose the name; empty if it is not known which.
    #[error("claims")]
    Claims(&'static str),
    /// The token is bound to another certificate, or came under the wrong scheme (RFC 8705, RFC
    /// 9449), or its binding is not one that the issuer's settings accept.
    #[error("binding")]
    Binding,
    /// The proof of a token that is bound to a key is absent or invalid, or was used before
    /// (AUTHN-19): the part that does not fit.
    #[error("proof")]
    Proof(&'static str),
    /// The proof has no current nonce of this service. A client needs the response to get one.
    #[error("proof_nonce")]
    ProofNonce,
    /// The certificate names no configured service, or names two (AUTHN-18).
    #[error("certificate")]
    Certificate,
    /// The issuer may not authenticate callers of this tenant, or the service has no tenant.
    #[error("tenant")]
    Tenant,
    /// The settings list clients, and this one is not among them (AUTHN-05).
    #[error("client")]
    Client,
    /// The client is not listed as a service that may act for itself (AUTHN-07).
    #[error("service_client")]
    ServiceClient,
    /// The token's marks do not prove whether the caller is a user or a service (AUTHN-07).
    #[error("caller_kind")]
    CallerKind,
    /// An actor uses the token for its subject (RFC 8693), and the issuer's settings accept no actors.
    #[error("actor")]
    Actor,
    /// The credential is revoked (AUTHN-11).
    #[error("revoked")]
    Revoked,
    /// A browser session has ended: by time, by a sign-out, or by the issuer.
    #[error("session_ended")]
    SessionEnded,
    /// The cookie is none of this service: of another MAC key or database, or forged.
    #[error("session_unknown")]
    SessionUnknown,
    /// The answer of the issuer to a sign-in is not the one that this browser asked for, or the
    /// sign-in was used before (AUTHN-14): the part that does not fit.
    #[error("sign_in")]
    SignIn(&'static str),
    /// The text is not an API key: its format or checksum is wrong.
    #[error("api_key_format")]
    ApiKeyFormat,
    /// No API key has this id.
    #[error("api_key_unknown")]
    ApiKeyUnknown,
    /// The secret of the API key is wrong.
    #[error("api_key_secret")]
    ApiKeySecret,
}

impl RejectReason {
    /// The claim that is absent or invalid or that shows the wrong type of token, or the part of a sign-in.
    pub(crate) fn claim(self) -> Option<&'static str> {
        let (Self::Claims(name) | Self::TokenType(name) | Self::SignIn(name) | Self::Proof(name)) = self else {
            return None;
        };
        Some(name).filter(|name| !name.is_empty())
    }

    /// Whether the token is too large, which the response says.
    pub(crate) const fn is_size(self) -> bool {
        matches!(self, Self::TooLong | Self::TooBroad)
    }

    /// Whether the rejection counts towards delays and lock-outs (AUTHN-17).
    ///
    /// Revoked credentials, ended sessions and expired tokens do not: they were valid once, cost no
    /// hash, and well-behaved clients need the 401 to get a new token. After a change of the MAC key,
    /// each browser has a cookie that is unknown; no guess at a tag of 128 bits succeeds. A client
    /// needs the refusal of a proof without a nonce to get one. Expired API keys do count, because
    /// their expiry is known to their creators. Large tokens do not count either: no guess becomes
    /// better by its size, and an address with many users would be locked out.
    pub(super) fn counts_as_failure(self, key: Option<ApiKeyId>) -> bool {
        let is_no_attack = matches!(self, Self::Revoked | Self::SessionEnded | Self::SessionUnknown | Self::ProofNonce)
            || self.is_size();
        !is_no_attack && (self != Self::Expired || key.is_some())
    }
}
