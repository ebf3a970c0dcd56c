//! The authenticated caller, and the subjects under which it is recorded (AUTHN-04, AUTHZ-09).
//!
//! Only `authn` makes a [`Principal`], from a verified credential. Authorization, quotas, the audit
//! trail and security events take the caller's identity from it.
//!
//! Reserved subject prefixes keep the kinds apart: `api-key:`, `service:`, `operator:`, `issuer:`.

use super::{SignInFault, dpop::Binding, sign_in::SignIn};
use crate::{
    model::{Role, Scope, SessionId, TenantId},
    telemetry::{Caller, RequestTelemetry},
};

/// Subject prefix of API keys.
pub(crate) const API_KEY_SUBJECT: &str = "api-key:";
/// Subject prefix of services that a client certificate authenticates.
pub(crate) const SERVICE_SUBJECT: &str = "service:";
/// Subject prefix of operators in the audit trail.
const OPERATOR_SUBJECT: &str = "operator:";
/// Prefix of subjects and clients of further issuers: `issuer:<name>:<sub>`.
const ISSUER_SUBJECT: &str = "issuer:";
/// Prefixes that a token's `sub` and client id must not have. That of API keys is reserved without
/// the feature `api_keys` too, which can be switched on later.
const RESERVED_PREFIXES: [&str; 4] = [API_KEY_SUBJECT, SERVICE_SUBJECT, OPERATOR_SUBJECT, ISSUER_SUBJECT];

/// Whether a token's `sub` or client id begins with a reserved prefix, in any letter case.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED_PREFIXES.iter().any(|prefix| strip_subject_prefix(name, prefix).is_some())
}

/// A token's subject or client as this service records it (AUTHN-04).
///
/// Names of a further issuer get a reserved prefix, and the issuer's name has no `:`. So two
/// issuers never share a subject, and an issuer that is added later never takes over a subject
/// that is already recorded.
pub(super) fn qualify(issuer: Option<&str>, name: &str) -> String {
    issuer.map_or_else(|| name.to_owned(), |issuer| format!("{ISSUER_SUBJECT}{issuer}:{name}"))
}

/// Strips a subject prefix, in any letter case: `API-KEY:` must not pass for another kind.
pub(crate) fn strip_subject_prefix<'s>(subject: &'s str, prefix: &str) -> Option<&'s str> {
    let (start, rest) = subject.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The kind of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// A person, through an OAuth client.
    User,
    /// A program that acts for itself: client credentials (RFC 6749 section 4.4) or a certificate.
    Service,
    /// A program that acts with an API key, within the rights of the key's creator.
    ApiKey,
}

impl CallerKind {
    /// `user`, `service` or `apiKey`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::ApiKey => "apiKey",
        }
    }
}

/// An authenticated caller (AUTHZ-09).
///
/// Its fields are private to `authn`, so a principal proves that a credential was verified. It is
/// the only source of the caller's identity; bodies, queries and headers are not.
#[derive(Debug)]
pub struct Principal {
    pub(super) kind: CallerKind,
    pub(super) subject: String,
    pub(super) client: String,
    pub(super) tenant: TenantId,
    pub(super) roles: Vec<Role>,
    pub(super) scopes: Vec<Scope>,
    /// For an API key: the subject of its creator. The creator's roles limit the key.
    pub(super) creator: Option<String>,
    /// The `jti` of the token; for an API key, of the token that authorized its creation.
    pub(super) token_id: Option<String>,
    /// The browser session, if its cookie is the credential.
    pub(super) session: Option<SessionId>,
    /// The session at the issuer, as revocations name it: `sid:` and the qualified `sid`.
    pub(super) issuer_session: Option<String>,
    /// What the token is bound to.
    pub(super) binding: Option<Binding>,
    /// The sign-in behind the token; that of programs demands nothing.
    pub(super) sign_in: SignIn,
    /// When the credential was issued, in seconds since the epoch.
    pub(super) issued_at: i64,
}

#[cfg(test)]
impl Principal {
    /// A user without roles and scopes, for unit tests.
    pub(crate) fn without_rights(tenant: TenantId) -> Self {
        Self {
            kind: CallerKind::User,
            subject: "a-user".to_owned(),
            client: "a-client".to_owned(),
            tenant,
            roles: Vec::new(),
            scopes: Vec::new(),
            creator: None,
            token_id: None,
            session: None,
            issuer_session: None,
            binding: None,
            sign_in: SignIn::default(),
            issued_at: 0,
        }
    }
}

impl Principal {
    /// Names the principal in what is logged about the current request from now on.
    pub(super) fn name_in_log(&self) {
        let key = self.subject.strip_prefix(API_KEY_SUBJECT);
        let credential = match key {
            Some(_) => "api_key",
            None if self.subject.starts_with(SERVICE_SUBJECT) => "certificate",
            None if self.session.is_some() => "session",
            None => "token",
        };
        RequestTelemetry::set_caller(Caller {
            subject: self.subject.clone(),
            // A service of the internal listener may have none.
            tenant: Some(self.tenant.uuid()).filter(|id| !id.is_nil()).map(|id| id.to_string()),
            credential,
            client_id: matches!(credential, "token" | "session").then(|| self.client.clone()),
            key: key.map(str::to_owned),
            actor: self.sign_in.actor().map(str::to_owned),
        });
    }

    /// User, service or API key.
    #[must_use]
    pub fn kind(&self) -> CallerKind {
        self.kind
    }

    /// The recorded subject. For tokens: `<sub>`, or `issuer:<name>:<sub>` from a further issuer.
    /// For API keys: `api-key:<id>`. For services with a certificate: `service:<name>`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The OAuth client of the token; for an API key or a certificate, the same as the subject.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.client
    }

    /// Subject and client that own the responses stored for retries (INPUT-10).
    ///
    /// All API keys of one creator share them, so that a retry may come with the key that replaced
    /// the first one. No token has this client id: its prefix is reserved.
    pub(crate) fn retry_owner(&self) -> (&str, &str) {
        self.creator.as_deref().map_or((&self.subject, self.recorded_client()), |creator| (creator, API_KEY_SUBJECT))
    }

    /// The client for the audit trail; with an actor `<client> actor:<actor>`.
    pub(crate) fn recorded_client(&self) -> &str {
        self.sign_in.recorded_client().unwrap_or(&self.client)
    }

    /// The subject of the actor that uses the token for its subject (RFC 8693), if there is one.
    #[must_use]
    pub fn actor(&self) -> Option<&str> {
        self.sign_in.actor()
    }

    /// What the sign-in of a person lacks if it may be `max_age` seconds old at `now`.
    pub(crate) fn sign_in_fault(&self, max_age: u32, now: i64) -> Option<SignInFault> {
        if self.kind == CallerKind::User { self.sign_in.fault(max_age, now) } else { None }
    }

    /// Values of `acr` that the issuer's settings call strong enough.
    pub(crate) fn strong_acr_values(&self) -> &[String] {
        self.sign_in.strong()
    }

    /// The tenant that all calls are confined to.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// When the credential was issued, in seconds since the epoch.
    ///
    /// An API key counts as issued with the credential that created it. A certificate counts as
    /// issued at its `notBefore`, a browser session at its sign-in.
    #[must_use]
    pub fn issued_at(&self) -> i64 {
        self.issued_at
    }

    /// The `jti` of the token, if any; for an API key, of the token that authorized its creation.
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// The browser session, if its cookie is the credential.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The roles in the principal's tenant.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The scopes that the credential has. Scopes of other APIs are dropped.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.scopes.iter().copied()
    }

    /// Whether the credential has the scope.
    #[must_use]
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}
