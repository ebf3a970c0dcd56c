//! Whose tokens are accepted, and how their claims are read. `docs/issuers.md` has worked examples.

use std::{collections::BTreeSet, convert::Infallible, str::FromStr, time::Duration};

use serde_json::{Map, Value};

use super::{Mark, Reader, checks, marks};
use crate::domain::TenantId;

/// Whose tokens are accepted.
#[derive(Debug)]
pub struct Oidc {
    /// The issuer of `APP_OIDC__…`.
    pub first: Issuer,
    /// Those of `APP_OIDC__FURTHER__<NAME>__…`.
    pub further: Vec<Issuer>,
    /// `APP_OIDC__LEEWAY_SECONDS`, default 30, at most 30: clock difference forgiven.
    pub leeway: i64,
    /// `APP_OIDC__REFRESH_SECONDS`, default 300, at most half of the next: how often keys are fetched anew, at the latest. An issuer whose
    /// `Cache-Control` asks for less is asked more often, but not within 30 s (or this setting, if shorter).
    pub refresh: Duration,
    /// `APP_OIDC__MAX_STALENESS_SECONDS`, default 3600, 60 to 86400: how long keys count that the issuer does not
    /// confirm any more. Then its tokens are answered with 503.
    pub max_staleness: i64,
    /// `APP_OIDC__CACHED_TOKENS`, default 10000: verified tokens remembered. Each that is not costs a signature and,
    /// if it tells a person's roles, a message to the database.
    pub cached_tokens: usize,
}

/// One issuer. Of a further one, audience, token type and lifetime default to the first one's.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// `None` for the first; `<NAME>` in lower case for a further one: 1 to 32 of `a-z`, `0-9`, `-`
    /// and `_`. The service records a further issuer's subjects and clients as `issuer:<name>:<sub>`.
    pub name: Option<String>,
    /// `…__ISSUER`, required: the issuer exactly as its tokens spell it in `iss`.
    pub url: String,
    /// `…__AUDIENCE`, required: what `aud` must hold.
    pub audience: String,
    /// `…__TOKEN_TYPE`, default `at+jwt` (RFC 9068). Issuers that cannot: `JWT`.
    pub token_type: String,
    /// `…__MAX_TOKEN_LIFETIME_SECONDS`, default 900, at most 86400. A token valid for longer is refused, signed or not.
    pub max_token_lifetime: i64,
    /// `…__REQUIRE_BOUND_TOKENS`, default false: refuse tokens that are not bound to a certificate of their holder's
    /// (RFC 8705). Those that are bound are never accepted from anybody else.
    pub require_bound_tokens: bool,
    /// `…__TENANT_CLAIM`, default `tenant_id`: what holds the tenant's UUID.
    pub tenant_claim: ClaimPath,
    /// `…__ROLES_CLAIM`, default `roles`: what holds the array of role names.
    pub roles_claim: ClaimPath,
    /// `…__SCOPE_CLAIM`, default `scope`: what holds the scopes, as an array or separated by spaces.
    pub scope_claim: ClaimPath,
    /// `…__SERVICE_SCOPE_CLAIM`, default as `…__SCOPE_CLAIM`: the same for a program that acts for itself.
    pub service_scope_claim: ClaimPath,
    /// `…__CLIENT_CLAIM`, default `client_id`: what holds the client's id; `azp` if it is absent.
    pub client_claim: ClaimPath,
    /// `…__SERVICE_MARKS`, separated by commas, default none: claims that only tokens of programs
    /// that act for themselves have. One is enough. A token whose subject is its client's id is a
    /// program's in any case (RFC 9068 section 2.2).
    pub service_marks: Vec<Mark>,
    /// `…__USER_MARKS`, separated by commas, required with the former: claims that only tokens of
    /// users have. One is enough. A token with marks of both kinds or of neither is refused.
    pub user_marks: Vec<Mark>,
    /// `…__SERVICE_CLIENTS`, separated by commas, default none: the programs that may act for
    /// themselves, by client id.
    pub service_clients: BTreeSet<String>,
    /// `…__TENANTS`, separated by commas: whose tokens it may issue. Required for a further issuer; the first one
    /// speaks for every tenant unless it is set.
    pub tenants: Option<BTreeSet<TenantId>>,
}

/// Where in a token something is: the name of a claim, or, if it begins with `/`, a JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(String);

impl ClaimPath {
    /// What is there.
    #[must_use]
    pub fn of<'v>(&self, claims: &'v Map<String, Value>) -> Option<&'v Value> {
        let Some(path) = self.0.strip_prefix('/') else { return claims.get(&self.0) };
        let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
        // The two escapes of RFC 6901 section 4, in this order.
        let value = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
        rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
    }
}

impl From<&str> for ClaimPath {
    /// A pointer to a claim itself is its name, so that equal paths are equal.
    fn from(text: &str) -> Self {
        let name = text.strip_prefix('/').filter(|name| !name.is_empty() && !name.contains(['/', '~']));
        Self(name.unwrap_or(text).to_owned())
    }
}

impl FromStr for ClaimPath {
    type Err = Infallible;

    fn from_str(s: &str) -> Result<Self, Infallible> {
        Ok(s.into())
    }
}

impl Oidc {
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let leeway = r.within("oidc.leeway_seconds", 30, 0..=30);
        let max_staleness = r.within("oidc.max_staleness_seconds", 3_600, 60..=86_400);
        let longest = u64::try_from(max_staleness / 2).unwrap_or_default();
        let refresh = r.within("oidc.refresh_seconds", longest.min(300), 1..=43_200);
        if refresh > longest {
            r.fault("oidc.refresh_seconds", "must be at most half of max_staleness_seconds: one failure is no outage");
        }
        let refresh = Duration::from_secs(refresh);
        let cached_tokens = r.within("oidc.cached_tokens", 10_000, 0..=10_000_000);
        let first = Issuer::read(r, None, None);
        let further = r.names("oidc.further").into_iter().map(|name| Issuer::read(r, Some(name), first.as_ref()));
        // All of them, before the first that is missing something ends it: each shall tell its faults.
        let further: Vec<Option<Issuer>> = further.collect();
        let further = further.into_iter().collect::<Option<Vec<Issuer>>>();
        let oidc = Self { first: first?, further: further?, leeway, refresh, max_staleness, cached_tokens };
        let distinct: BTreeSet<&str> = oidc.issuers().map(|issuer| issuer.url.as_str()).collect();
        if distinct.len() != oidc.issuers().count() {
            r.fault("oidc.further", "names an issuer twice");
        }
        Some(oidc)
    }

    /// Of these variables alone, for unit tests.
    #[cfg(test)]
    pub(crate) fn from_variables(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self::read(&mut Reader::new(variables.iter().map(owned).collect())).unwrap()
    }

    /// All of them, the first one first.
    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        std::iter::once(&self.first).chain(&self.further)
    }
}

/// What a setting of the issuer of this name is called.
fn key_of(name: Option<&str>, leaf: &str) -> String {
    name.map_or_else(|| format!("oidc.{leaf}"), |name| format!("oidc.further.{name}.{leaf}"))
}

/// Subjects begin with the name, so that it holds no separator and has one spelling.
fn is_issuer_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=32).contains(&name.len()) && name.bytes().all(plain)
}

impl Issuer {
    /// What a setting of it is called.
    pub(super) fn key(&self, leaf: &str) -> String {
        key_of(self.name.as_deref(), leaf)
    }

    /// The first issuer, or a further one of this name.
    fn read(r: &mut Reader, name: Option<String>, first: Option<&Self>) -> Option<Self> {
        let key = |leaf: &str| key_of(name.as_deref(), leaf);
        let path = |text: &str| ClaimPath::from(text);
        if let Some(name) = name.as_deref().filter(|name| !is_issuer_name(name)) {
            let key = format!("oidc.further.{name}");
            r.fault(&key, "the name of a further issuer is 1 to 32 of `a-z`, `0-9`, `-` and `_`");
        }
        let url: Option<String> = r.required(&key("issuer"));
        if let Some(url) = &url {
            let production = r.is_production();
            checks::check_issuer(&key("issuer"), url, production, r);
        }
        let audience = match first {
            None => r.required(&key("audience")),
            Some(first) => Some(r.or(&key("audience"), first.audience.clone())),
        };
        let token_type = r.or(&key("token_type"), first.map_or("at+jwt".to_owned(), |first| first.token_type.clone()));
        let lifetime = first.map_or(900, |first| first.max_token_lifetime);
        let max_token_lifetime = r.within(&key("max_token_lifetime_seconds"), lifetime, 1..=86_400);
        let require_bound_tokens = r.or(&key("require_bound_tokens"), false);
        let scope_claim = r.or(&key("scope_claim"), path("scope"));
        let tenant_claim = r.or(&key("tenant_claim"), path("tenant_id"));
        let roles_claim = r.or(&key("roles_claim"), path("roles"));
        let service_scope_claim = r.or(&key("service_scope_claim"), scope_claim.clone());
        let client_claim = r.or(&key("client_claim"), path("client_id"));
        let service_marks = r.list(&key("service_marks"));
        let user_marks = r.list(&key("user_marks"));
        let service_clients = r.list(&key("service_clients")).into_iter().collect();
        let tenants: BTreeSet<TenantId> = r.list(&key("tenants")).into_iter().collect();
        if name.is_some() && tenants.is_empty() {
            r.fault(
                &key("tenants"),
                "is required: a further issuer speaks for the tenants that are named and no other",
            );
        }
        let issuer = Self {
            name,
            url: url?,
            audience: audience?,
            token_type,
            max_token_lifetime,
            require_bound_tokens,
            tenant_claim,
            roles_claim,
            scope_claim,
            service_scope_claim,
            client_claim,
            service_marks,
            user_marks,
            service_clients,
            tenants: (!tenants.is_empty()).then_some(tenants),
        };
        marks::check(&issuer, r);
        Some(issuer)
    }
}
