use std::collections::BTreeSet;

use super::certificate::Thumbprint;
use crate::{
    authz::{matrix::Scope, policy::Role},
    domain::TenantId,
};

/// Prefix of the subjects of API keys.
pub(crate) const API_KEY_SUBJECT: &str = "api-key:";
/// Prefix of the subjects of services that a client certificate authenticates.
pub(crate) const SERVICE_SUBJECT: &str = "service:";
/// Prefix of the subjects of operators in the audit trail.
const OPERATOR_SUBJECT: &str = "operator:";
/// Prefix of the subjects and clients of further issuers: `issuer:<name>:<sub>`.
const ISSUER_SUBJECT: &str = "issuer:";
/// Prefixes that no `sub` and no client id of a token may have.
const RESERVED: [&str; 4] = [API_KEY_SUBJECT, SERVICE_SUBJECT, OPERATOR_SUBJECT, ISSUER_SUBJECT];

/// Whether a `sub` or a client id of a token begins with a reserved prefix, in any case.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|prefix| after_kind(name, prefix).is_some())
}

/// The subject or client of a token as this service records it. The names of a further issuer get
/// a reserved prefix, and the issuer's name has no `:`. So two issuers never share a subject, and
/// an issuer that is added later never takes over a subject that is already recorded.
pub(super) fn qualified(issuer: Option<&str>, name: &str) -> String {
    issuer.map_or_else(|| name.to_owned(), |issuer| format!("{ISSUER_SUBJECT}{issuer}:{name}"))
}

/// What follows how a subject of some kind begins, in letters of whatever case: none may look like another.
pub(crate) fn after_kind<'s>(subject: &'s str, kind: &str) -> Option<&'s str> {
    let (begin, rest) = subject.split_at_checked(kind.len())?;
    begin.eq_ignore_ascii_case(kind).then_some(rest)
}

/// What kind of caller a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// A person, through some client.
    User,
    /// A program acting for itself.
    Service,
    /// A program acting for whoever made its API key.
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

/// An authenticated caller. Its fields are private and only `authn/` makes one, so that holding
/// a principal proves that a credential was verified. Identity comes from here and from nowhere
/// else: not from a body, a query or a header (control AUTHZ-09).
#[derive(Debug)]
pub struct Principal {
    pub(super) kind: CallerKind,
    pub(super) subject: String,
    pub(super) client: String,
    pub(super) tenant: TenantId,
    pub(super) roles: Vec<Role>,
    pub(super) scopes: BTreeSet<Scope>,
    /// Whose rights bound it: of an API key, who made it.
    pub(super) creator: Option<String>,
    /// The `jti` of its token; of an API key, that of the token by which it was made.
    pub(super) token_id: Option<String>,
    /// The certificate that its token is bound to.
    pub(super) bound_to: Option<Thumbprint>,
    /// When its credential was issued, in seconds since the epoch.
    pub(super) issued_at: i64,
}

#[cfg(test)]
impl Principal {
    /// Somebody without roles and scopes, for unit tests.
    pub(crate) fn nobody_of(tenant: TenantId) -> Self {
        Self {
            kind: CallerKind::User,
            subject: "nobody".to_owned(),
            client: "none".to_owned(),
            tenant,
            roles: Vec::new(),
            scopes: BTreeSet::new(),
            creator: None,
            token_id: None,
            bound_to: None,
            issued_at: 0,
        }
    }
}

impl Principal {
    /// A person, or a program acting for itself or for a person.
    #[must_use]
    pub fn kind(&self) -> CallerKind {
        self.kind
    }

    /// The `sub` of the token, for a further issuer as `issuer:<name>:<sub>`; `api-key:` and the id
    /// of an API key; `service:` and the name of a service with a certificate.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The OAuth client that presented it; of an API key or a certificate, the same as its subject.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.client
    }

    /// The tenant all its calls are confined to.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// When its credential was issued; an API key's, when the one was by which it was made; a certificate's, when it begins. Seconds
    /// since the epoch.
    #[must_use]
    pub fn issued_at(&self) -> i64 {
        self.issued_at
    }

    /// The `jti` of its token, if it has one; of an API key, that of the token by which it was made.
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// Its roles in that tenant.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The scopes of this API it was delegated. Scopes of other APIs are not kept.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.scopes.iter().copied()
    }

    /// Whether it was delegated the scope.
    #[must_use]
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}
