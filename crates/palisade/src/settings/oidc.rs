//! The issuers of accepted tokens, and how their claims are read. docs/issuers.md has
//! worked examples.
//!
//! The table of an issuer has four parts: where its keys are, which tokens are its access tokens for
//! this API, who the caller is, and what the caller may do. `issuer_checks.rs` has the rules that
//! involve several settings.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use url::Url;

use super::{
    ClaimMatch, ClaimPath, Dpop, Reader, Rename, Section, SignatureAlgorithm, Template, checks, issuer_checks,
};
use crate::model::TenantId;

/// The word of `token_type` for tokens without a `typ`.
pub const NO_TYPE: &str = "none";

/// The type that only access tokens have (RFC 9068 section 2.1).
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// The sections of this file, which the reference lists after those of `table.rs`.
pub(super) static TABLE: &[Section] = &[Issuer::SECTION, Oidc::SECTION];

crate::settings_section! {
    /// An accepted issuer of tokens, and how its claims are read.
    pub struct Issuer("oidc", "oidc.further.<name>"), "Issuers" {
        url: String = "issuer" => checks::issuer,
            "The issuer exactly as its tokens spell it in `iss`. A part in braces is the value of the tenant claim: `https://login.example.com/{tid}/v2.0` with `tenant_claim = \"tid\"`.";
        discovery_url: Option<Url> = "discovery_url".default_text("`…ISSUER` and `/.well-known/openid-configuration`") => checks::issuer_address,
            "Address of the issuer's discovery document, if it is not below the issuer.";
        jwks_url: Option<Url> = "jwks_url".default_text("`jwks_uri` of the discovery document") => checks::issuer_address,
            "Address of the issuer's keys. With it, there is no discovery.";
        authorities: Option<PathBuf> = "ca_path".default_text("those of the system"),
            "PEM file of authorities for the certificate of both addresses.";

        audience: Vec<String> = "audience".default_text("required").inherited() => checks::audience,
            "Audiences of this API; tokens must name one of them.";
        audience_claim: ClaimPath = "audience_claim".default("aud"),
            "Claim with the audience. For issuers without `aud`, such as `client_id`; the audiences are then the accepted clients.";
        clients: Option<BTreeSet<String>> = "clients".default_text("all"),
            "Client ids whose tokens are accepted.";
        token_types: Vec<String> = "token_type".default("at+jwt").inherited() => checks::audience,
            "Headers `typ` of its access tokens (RFC 9068). For issuers that cannot set it: `JWT`, or `none` for tokens without `typ`.";
        access_token_claims: Vec<ClaimMatch> = "access_token_claims",
            "Claims that only its access tokens have, such as `token_use=access`; one of them is required. Then `nonce` is no sign of an ID token.";
        algorithms: Vec<SignatureAlgorithm> = "algorithms".default("ES256, EdDSA, RS256, PS256"),
            "Signature algorithms of its tokens.";
        fractional_times: bool = "fractional_times".default("false"),
            "Whether times may have a fraction of a second. They are rounded so that a token is valid for less time, not more.";
        max_token_lifetime: i64 = "max_token_lifetime_seconds".default(900).within(1, 86_400, "s").inherited(),
            "Longest lifetime of a token. Tokens that are valid for longer are rejected.";
        require_bound_tokens: bool = "require_bound_tokens".default("false"),
            "Whether tokens must be bound, to a client certificate (RFC 8705) or with the next setting to a key. A bound token is only accepted with its certificate or proof.";
        dpop: Dpop = "dpop".default("off"),
            "Whether tokens may (`optional`) or must (`required`) be bound to a key of the client, which proves with each request that it has the key (DPoP, RFC 9449).";

        subject_claim: ClaimPath = "subject_claim".default("sub"),
            "Claim with the subject. No user may choose its value, and the issuer must never assign it again. A program without the claim has the subject in `sub`.";
        client_claim: ClaimPath = "client_claim".default("client_id"),
            "Claim with the client's id; `azp` if it is absent.";
        fixed_client: Option<String> = "fixed_client".default_text("none: the client claim is required"),
            "Client id of all tokens, for issuers whose tokens name no client.";
        service_claims: Vec<ClaimMatch> = "service_claims",
            "Claims that only tokens of programs acting for themselves have; one of them is enough. A token whose subject is its client id is a program's in any case (RFC 9068 section 2.2).";
        user_claims: Vec<ClaimMatch> = "user_claims".default_text("required with `…SERVICE_CLAIMS`"),
            "Claims that only tokens of users have; one of them is enough. Tokens with claims of both lists, or of neither, are rejected.";
        service_clients: BTreeSet<String> = "service_clients",
            "Client ids of programs that may act for themselves.";
        tenant_claim: ClaimPath = "tenant_claim".default("tenant_id"), "Claim with the tenant.";
        tenant_template: Option<Template> = "tenant_template".default_text("the value itself"),
            "Form of the tenant in its claim, such as `urn:tenant:{tenant}`. In a list, exactly one item must have it.";
        tenant_map: Vec<Rename<TenantId>> = "tenant_map".default_text("none: the claim is the tenant's UUID"),
            "The issuer's names of tenants, such as `acme=<uuid>`. Other tenants are rejected.";
        tenants: Option<BTreeSet<TenantId>> = "tenants".default_text("those of the map, or all that no further issuer lists; required for a further issuer"),
            "Tenants for which it may issue tokens.";
        create_tenants: bool = "create_tenants".default("false"),
            "Whether a token of an unknown tenant registers the tenant. Otherwise an operator does (docs/tenants.md), and other tenants get 403.";

        roles_claim: ClaimPath = "roles_claim".default("roles"),
            "Claim with the array of role names. `/*~` after it takes the names of an object's members.";
        role_map: Vec<Rename<String>> = "role_map".default_text("none: roles have the names of this API"),
            "The issuer's names of roles or groups, such as `Orders-Admins=admin`. With it, other names count for nothing.";
        scope_claim: ClaimPath = "scope_claim".default("scope"),
            "Claim with the scopes, as an array or separated by spaces.";
        service_scope_claim: ClaimPath = "service_scope_claim".default("scope").default_text("as `…SCOPE_CLAIM`"),
            "The same for a program that acts for itself.";
        scope_prefix: Option<String> = "scope_prefix",
            "Text before each scope of this API, such as `shop/`. With it, scopes without the prefix count for nothing.";
        scope_map: Vec<Rename<String>> = "scope_map".default_text("none: scopes have the names of this API"),
            "The issuer's names of scopes without the prefix, such as `Orders.Read=orders:read`. With it, other names count for nothing.";
        acr_values: Vec<String> = "acr_values".default_text("none: the strength of a sign-in is not checked"),
            "Values of `acr` that are strong enough for the operations with a step-up in the route matrix. The challenge names them (RFC 9470).";
        require_auth_time: bool = "require_auth_time".default("false"),
            "Whether those operations refuse people's tokens without `auth_time`. Otherwise the age of a sign-in is checked for tokens that have it.";
        accept_actors: bool = "accept_actors".default("false"),
            "Whether tokens with the claim `act` are accepted (RFC 8693): an actor calls for the subject. Never for the operations with a step-up.";
    }
    + {
        /// `None` for the first issuer, `<NAME>` in lower case for a further one: 1 to 32 of `a-z`,
        /// `0-9`, `-` and `_`. Subjects and clients of a further one are recorded as
        /// `issuer:<name>:<sub>`.
        name: Option<String>,
        /// The form of `iss`, if the issuer has a part in braces.
        template: Option<Template>,
    }
}

crate::settings_section! {
    /// The accepted issuers, and how their keys are kept.
    pub struct Oidc("oidc"), "Verification of tokens" {
        leeway: i64 = "leeway_seconds".default(30).within(0, 30, "s"), "Tolerated difference between clocks.";
        refresh: Duration = "refresh_seconds".default(300).default_text("300, or half of `…MAX_STALENESS_SECONDS` if that is less").within(1, 43_200, "s"),
            "Longest time between fetches of an issuer's keys, at most half of the next setting. A shorter `Cache-Control` is respected down to 30 s, or this setting if it is shorter.";
        max_staleness: i64 = "max_staleness_seconds".default(3_600).within(60, 86_400, "s"),
            "Time for which keys stay valid after the issuer last confirmed them. Then its tokens get 503.";
        cached_tokens: usize = "cached_tokens".default(10_000).within(0, 10_000_000, ""),
            "Verified tokens that are cached. Others cost a signature check and, for tokens with a person's roles, a database query.";
        max_token_bytes: usize = "max_token_bytes".default(8_192).within(1_024, 24_576, "bytes"),
            "Largest token. A larger one gets 431, which does not count as a failed authentication.";
        max_claim_items: usize = "max_claim_items".default(256).within(256, 4_096, ""),
            "Most items of a list, and most members of an object, in a token. More get 431 too.";
    }
    + {
        /// The issuer of `APP_OIDC__…`.
        first: Issuer,
        /// The issuers of `APP_OIDC__FURTHER__<NAME>__…`.
        further: Vec<Issuer>,
    }
}

impl Oidc {
    /// `None` if an issuer has a fault.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let path = Issuer::SECTION.path;
        let first = Issuer::read(r, None);
        // All of them before the first `?`, so that every fault is found.
        let further: Vec<Option<Issuer>> =
            r.instances(path).into_iter().map(|name| Issuer::read(r, Some(&name))).collect();
        let longest = Duration::from_secs(r.read(&Self::max_staleness, None)?.unsigned_abs() / 2);
        let has_refresh = r.has(&Self::refresh.name());
        if has_refresh && r.read(&Self::refresh, None)? > longest {
            let message = "must be at most half of max_staleness_seconds, so that one failed fetch is no outage";
            r.fault(&Self::refresh.name(), message);
        }
        let mut oidc = Self::read_rows(r, None, first, further.into_iter().collect())?;
        if !has_refresh {
            oidc.refresh = oidc.refresh.min(longest);
        }
        let distinct: BTreeSet<&str> = oidc.issuers().map(|issuer| issuer.url.as_str()).collect();
        if distinct.len() != oidc.issuers().count() {
            r.fault(&path.instances_table(), "names an issuer twice");
        }
        Some(oidc)
    }

    /// For unit tests.
    #[cfg(test)]
    pub(crate) fn from_variables(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self::read(&mut Reader::new(variables.iter().map(owned).collect(), super::ServiceSections::NONE)).unwrap()
    }

    /// All issuers, the first one first.
    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        std::iter::once(&self.first).chain(&self.further)
    }
}

impl Issuer {
    /// The first issuer, or the further one of this name.
    fn read(r: &mut Reader, name: Option<&str>) -> Option<Self> {
        issuer_checks::check_name(name, r);
        // A further issuer has that of the first.
        let audience = Self::audience.name();
        if !r.has(&audience) {
            r.fault(&audience, "is required");
        }
        let url = Self::url.resolve_name(name);
        let template = r.read(&Self::url, name).map(|text| Template::parse(&text));
        if let Some(Err(expected)) = &template {
            r.fault(&url, *expected);
        }
        let template = template.and_then(Result::ok).flatten();
        let mut issuer = Self::read_rows(r, name, Some(name.map(str::to_owned)), Some(template))?;
        if !r.has(&Self::service_scope_claim.resolve_name(name)) {
            issuer.service_scope_claim = issuer.scope_claim.clone();
        }
        if issuer.tenants.is_none() && !issuer.tenant_map.is_empty() {
            issuer.tenants = Some(issuer.tenant_map.iter().map(|tenant| tenant.ours).collect());
        }
        issuer_checks::check(&issuer, r);
        Some(issuer)
    }

    /// The URL at which clients discover the issuer. One with a part in braces has none of its own.
    #[must_use]
    pub fn public_address(&self) -> String {
        let shared = self.discovery_url.as_ref().filter(|_| self.template.is_some()).map(Url::to_string);
        let shared = shared.and_then(|url| url.strip_suffix("/.well-known/openid-configuration").map(str::to_owned));
        shared.unwrap_or_else(|| self.url.clone())
    }

    /// Where the discovery document is, unless the settings name the address of the keys.
    #[must_use]
    pub fn discovery_address(&self) -> String {
        let below = || format!("{}/.well-known/openid-configuration", self.url.trim_end_matches('/'));
        self.discovery_url.as_ref().map_or_else(below, Url::to_string)
    }

    /// The variable of one of this issuer's settings, for messages to operators.
    #[must_use]
    pub fn variable(&self, last_part: &str) -> String {
        let name = self.name.as_deref();
        let prefix = Self::url.resolve_name(name).variable();
        format!("{}{}", prefix.strip_suffix("ISSUER").unwrap_or(&prefix), last_part.to_uppercase())
    }
}
