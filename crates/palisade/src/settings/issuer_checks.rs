//! Rules that involve several settings of an issuer (SECRET-03), and what its settings give up.
//!
//! `oidc.rs` calls [`check`] for each issuer. The command `check-config` prints [`relaxations`].

use std::collections::BTreeSet;

use super::{ClaimPath, Issuer, Oidc, Outbound, Profile, Reader, Settings, claim_matches, oidc};
use crate::model::Role;

/// Recorded subjects begin with the name, so it has no separator and one spelling.
pub(super) fn check_name(name: Option<&str>, r: &mut Reader) {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if let Some(name) = name.filter(|name| !(1..=32).contains(&name.len()) || !name.bytes().all(allowed)) {
        let message = "the name of a further issuer is 1 to 32 of `a-z`, `0-9`, `-` and `_`";
        r.fault(&Issuer::SECTION.path.instance_path(name), message);
    }
}

/// Adds a fault for each combination that accepts too much, or has no effect.
pub(super) fn check(issuer: &Issuer, r: &mut Reader) {
    let name = issuer.name.as_deref();
    let tenants = Issuer::tenants.resolve_name(name);
    if name.is_some() && issuer.tenants.is_none() && !r.has(&tenants) {
        r.fault(&tenants, "is required: a further issuer is accepted for the tenants that it lists only");
    }
    if issuer.jwks_url.is_some() && issuer.discovery_url.is_some() {
        let discovery = Issuer::discovery_url.resolve_name(name);
        r.fault(&discovery, "has no effect with the address of the keys; remove one of them");
    }
    if issuer.fixed_client.is_some() && r.has(&Issuer::client_claim.resolve_name(name)) {
        let client = Issuer::fixed_client.resolve_name(name);
        r.fault(&client, "is for tokens that name no client; remove it, or the client claim");
    }
    check_template(issuer, r);
    check_maps(issuer, r);
    claim_matches::check(issuer, r);
}

/// The keys of a templated issuer are those of all its directories, so its tenants must be listed,
/// and the tenant must be what `iss` says.
fn check_template(issuer: &Issuer, r: &mut Reader) {
    let Some(template) = &issuer.template else { return };
    let name = issuer.name.as_deref();
    if template.name.parse::<ClaimPath>().as_ref() != Ok(&issuer.tenant_claim) {
        let message = format!("must be `{}`, the claim in the braces of the issuer", template.name);
        r.fault(&Issuer::tenant_claim.resolve_name(name), message);
    }
    if issuer.tenant_template.is_some() {
        let message = "has no effect with braces in the issuer; remove it";
        r.fault(&Issuer::tenant_template.resolve_name(name), message);
    }
    if issuer.tenants.is_none() {
        let message = "is required with braces in the issuer: its keys sign for every directory";
        r.fault(&Issuer::tenants.resolve_name(name), message);
    }
    if issuer.discovery_url.is_none() && issuer.jwks_url.is_none() {
        let message = "is required with braces in the issuer, or the address of the keys is";
        r.fault(&Issuer::discovery_url.resolve_name(name), message);
    }
}

/// A map gives rights only by names that this service has.
fn check_maps(issuer: &Issuer, r: &mut Reader) {
    let name = issuer.name.as_deref();
    let rights = r.rights();
    let is_scope = |known: &String| rights.scopes.iter().any(|scope| scope.as_str() == known);
    if !issuer.scope_map.iter().all(|scope| is_scope(&scope.ours)) {
        r.fault(&Issuer::scope_map.resolve_name(name), "has a scope that this API does not have");
    }
    let is_role = |known: &String| {
        let mut roles = rights.roles.0.iter().map(|(role, _)| *role);
        roles.any(|role| role != Role::SERVICE && role.as_str() == known)
    };
    if !issuer.role_map.iter().all(|role| is_role(&role.ours)) {
        r.fault(&Issuer::role_map.resolve_name(name), "has a role that people cannot have at this API");
    }
    let map = &issuer.tenant_map;
    let distinct: BTreeSet<&str> = map.iter().map(|tenant| tenant.theirs.as_str()).collect();
    if distinct.len() != map.len() || map.iter().any(|tenant| tenant.ours.uuid().is_nil()) {
        let message = "must name each of the issuer's tenants once, and no nil UUID";
        r.fault(&Issuer::tenant_map.resolve_name(name), message);
    }
}

/// What the settings accept beyond the defaults: the variable, and what that gives up.
#[must_use]
pub fn relaxations(settings: &Settings) -> Vec<(String, &'static str)> {
    let oidc = &settings.oidc;
    let mut found: Vec<_> = oidc.issuers().flat_map(of_issuer).collect();
    let networks = &settings.outbound.allowed_networks;
    let general = [
        (
            oidc.max_token_bytes > 8_192 || oidc.max_claim_items > 256,
            Oidc::max_token_bytes.name(),
            "an unverified token costs more to parse",
        ),
        (
            settings.profile == Profile::Production && !networks.is_empty(),
            Outbound::allowed_networks.name(),
            "issuers can make the service call any host of these networks",
        ),
        (
            settings.outbound.use_proxy,
            Outbound::use_proxy.name(),
            "the proxy, not the service, decides which addresses may be called",
        ),
    ];
    found.extend(general.into_iter().filter(|(applies, ..)| *applies).map(|(_, name, what)| (name.variable(), what)));
    found
}

fn of_issuer(issuer: &Issuer) -> Vec<(String, &'static str)> {
    let has_type = |wanted: &str| issuer.token_types.iter().any(|typ| typ.eq_ignore_ascii_case(wanted));
    let proof = "without access_token_claims, ID tokens are told apart by nonce, hashes and audience only";
    let is_weak_type = issuer.token_types.iter().any(|typ| !typ.eq_ignore_ascii_case(oidc::ACCESS_TOKEN_TYPE));
    let is_renamed = |path: &ClaimPath, name: &str| path.to_string() != name;
    [
        ("token_type", is_weak_type && issuer.access_token_claims.is_empty(), proof),
        ("token_type", has_type(oidc::NO_TYPE), "tokens without a type are accepted"),
        (
            "audience_claim",
            is_renamed(&issuer.audience_claim, "aud"),
            "`aud` is not checked: a token of these clients for another API is accepted",
        ),
        ("jwks_url", issuer.jwks_url.is_some(), "no discovery document confirms the issuer of these keys"),
        ("fractional_times", issuer.fractional_times, "times may be rounded by less than a second"),
        ("algorithms", issuer.algorithms.len() > 4, "more signature algorithms than the issuer may need"),
        (
            "subject_claim",
            is_renamed(&issuer.subject_claim, "sub"),
            "a user who can change this claim becomes another user",
        ),
        ("fixed_client", issuer.fixed_client.is_some(), "clients cannot be told apart, listed or revoked"),
        (
            "issuer",
            issuer.template.is_some(),
            "one set of keys signs for every directory; only the listed tenants are accepted",
        ),
        ("max_token_lifetime_seconds", issuer.max_token_lifetime > 900, "a stolen token works for longer"),
    ]
    .into_iter()
    .filter(|(_, applies, _)| *applies)
    .map(|(last_part, _, what)| (issuer.variable(last_part), what))
    .collect()
}
