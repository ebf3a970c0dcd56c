//! From verified claims to the principal (AUTHN-04, AUTHN-07).
//!
//! [`super::verify`] calls [`principal`] with the claims of a token whose signature is checked. One
//! function reads each part: subject, client, kind of caller, roles and scopes, tenant. The settings
//! of the issuer say where each part is, and what the issuer's names mean here.

use std::{collections::BTreeSet, str::FromStr};

use serde_json::Value;

use super::{
    RejectReason,
    claims::Claims,
    principal::{CallerKind, Principal, is_reserved, qualify},
    sessions,
    sign_in::SignIn,
    tenants::Tenants,
};
use crate::{
    model::{Rights, Role, Scope, TenantId, is_control_or_invisible, is_joiner_or_selector},
    settings::{Issuer, rename},
};

/// Maximum length of subjects, client ids and token ids, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Makes the principal of a token, without its time and its certificate.
pub(super) fn principal(
    issuer: &Issuer,
    rights: &Rights,
    (registered, tenants_of_others): (Option<&Tenants>, &BTreeSet<TenantId>),
    claims: &Claims,
) -> Result<Principal, RejectReason> {
    let client = client(issuer, claims)?;
    let kind = kind(issuer, claims, client)?;
    let subject = subject(issuer, claims, kind).ok_or(RejectReason::Claims("sub"))?;
    let recorded_client = qualified_name(issuer, client).ok_or(RejectReason::Claims("client"))?;
    let issuer_session = claims.0.get("sid").filter(|_| sessions::ENABLED);
    Ok(Principal {
        kind,
        roles: roles(issuer, rights, claims, kind)?,
        scopes: scopes(issuer, rights, claims, kind)?,
        token_id: token_id(claims)?,
        subject: qualified_name(issuer, subject).ok_or(RejectReason::Claims("sub"))?,
        sign_in: SignIn::from_claims(claims, issuer, &recorded_client)?,
        client: recorded_client,
        tenant: tenant(issuer, registered, tenants_of_others, claims)?,
        creator: None,
        session: None,
        issuer_session: issuer_session.map(|sid| self::issuer_session(issuer, sid)).transpose()?,
        binding: None,
        issued_at: 0,
    })
}

/// The subject. Some issuers have a claim for users only, such as `uid` of Okta. The subject of a
/// service, which the settings list by its client, is then in `sub`.
fn subject<'c>(issuer: &Issuer, claims: &'c Claims, kind: CallerKind) -> Option<&'c str> {
    match issuer.subject_claim.find(&claims.0) {
        None if kind == CallerKind::Service => claims.text("sub"),
        _ => issuer.subject_claim.text(&claims.0),
    }
}

/// The client that got the token. It must be listed, if the settings list clients.
pub(super) fn client<'c>(issuer: &'c Issuer, claims: &'c Claims) -> Result<&'c str, RejectReason> {
    let named = || named_client(issuer, claims);
    let client = issuer.fixed_client.as_deref().or_else(named).ok_or(RejectReason::Claims("client"))?;
    let is_accepted = issuer.clients.as_ref().is_none_or(|clients| clients.contains(client));
    if is_accepted { Ok(client) } else { Err(RejectReason::Client) }
}

/// The client that the token names.
fn named_client<'c>(issuer: &Issuer, claims: &'c Claims) -> Option<&'c str> {
    issuer.client_claim.find(&claims.0).or_else(|| claims.0.get("azp"))?.as_str()
}

/// Whether the token is a service's (client credentials) or a user's (AUTHN-07).
///
/// A service must be listed in the settings. If the issuer has user marks, a token with marks of
/// both kinds or of neither is rejected: a service must not pass for a user and get its roles from
/// the token.
fn kind(issuer: &Issuer, claims: &Claims, client: &str) -> Result<CallerKind, RejectReason> {
    // With a fixed client, the token may still name its own.
    let clients = [Some(client), named_client(issuer, claims)];
    let subjects = [issuer.subject_claim.text(&claims.0), claims.text("sub")];
    let is_own_client = subjects.iter().any(|subject| subject.is_some() && clients.contains(subject));
    let is_service = is_own_client || issuer.service_claims.iter().any(|mark| mark.is_in(&claims.0));
    let is_user = issuer.user_claims.iter().any(|mark| mark.is_in(&claims.0));
    match (is_service, is_user) {
        (true, _) if !issuer.service_clients.contains(client) => Err(RejectReason::ServiceClient),
        (true, true) => Err(RejectReason::CallerKind),
        (false, false) if !issuer.user_claims.is_empty() => Err(RejectReason::CallerKind),
        (true, false) => Ok(CallerKind::Service),
        (false, _) => Ok(CallerKind::User),
    }
}

/// The roles of a user. A service has its own, whatever its token says. A role that this API does
/// not define grants nothing, so it is skipped, not rejected.
fn roles(issuer: &Issuer, rights: &Rights, claims: &Claims, kind: CallerKind) -> Result<Vec<Role>, RejectReason> {
    if kind == CallerKind::Service {
        return Ok(vec![Role::SERVICE]);
    }
    let names = issuer.roles_claim.list(&claims.0).ok_or(RejectReason::Claims("roles"))?;
    Ok(rights.find_roles(&rename(&issuer.role_map, names)))
}

/// The scopes of this API: an array, or texts separated by spaces (RFC 8693 section 4.2).
fn scopes(issuer: &Issuer, rights: &Rights, claims: &Claims, kind: CallerKind) -> Result<Vec<Scope>, RejectReason> {
    let claim = if kind == CallerKind::Service { &issuer.service_scope_claim } else { &issuer.scope_claim };
    let names = claim.split_list(&claims.0, Some(' ')).ok_or(RejectReason::Claims("scope"))?;
    let names = match &issuer.scope_prefix {
        Some(prefix) => names.into_iter().filter_map(|name| name.strip_prefix(prefix)).collect(),
        None => names,
    };
    Ok(rights.find_scopes(&rename(&issuer.scope_map, names)))
}

/// The token's id. One that a revocation could not name is rejected.
fn token_id(claims: &Claims) -> Result<Option<String>, RejectReason> {
    let is_revocable = |id: &&str| (1..=MAX_NAME_BYTES).contains(&id.len()) && !id.contains(char::is_control);
    let id = claims.0.get("jti").map(|id| id.as_str().filter(is_revocable).ok_or(RejectReason::Claims("jti")));
    Ok(id.transpose()?.map(str::to_owned))
}

/// The tenant, if the settings let this issuer authenticate its callers (AUTHN-04).
fn tenant(
    issuer: &Issuer,
    registered: Option<&Tenants>,
    tenants_of_others: &BTreeSet<TenantId>,
    claims: &Claims,
) -> Result<TenantId, RejectReason> {
    let name = tenant_name(issuer, claims).ok_or(RejectReason::Claims("tenant"))?;
    let tenant = match issuer.tenant_map.as_slice() {
        [] => {
            let tenant = registered.and_then(|known| known.find(&issuer.url, name)).or_else(|| parse_tenant(name));
            tenant.ok_or(RejectReason::Claims("tenant"))?
        }
        map => map.iter().find(|entry| entry.theirs == name).map(|entry| entry.ours).ok_or(RejectReason::Tenant)?,
    };
    let is_own = match &issuer.tenants {
        Some(own) => own.contains(&tenant),
        None => !tenants_of_others.contains(&tenant),
    };
    if is_own { Ok(tenant) } else { Err(RejectReason::Tenant) }
}

/// The issuer's name of the tenant. With a template, exactly one text must have its form.
fn tenant_name<'c>(issuer: &Issuer, claims: &'c Claims) -> Option<&'c str> {
    let Some(template) = &issuer.tenant_template else { return issuer.tenant_claim.text(&claims.0) };
    let texts = issuer.tenant_claim.texts(&claims.0);
    let mut names = texts.into_iter().filter_map(|text| template.extract(text));
    names.next().filter(|_| names.next().is_none())
}

/// Only the hyphenated form, and not nil: the audit trail records operator acts on all tenants
/// under the nil UUID.
fn parse_tenant(name: &str) -> Option<TenantId> {
    let tenant = TenantId::from_str(name).ok()?;
    Some(tenant).filter(|tenant| tenant.to_string().eq_ignore_ascii_case(name) && !tenant.uuid().is_nil())
}

/// A session at the issuer (`sid`) as revocations name it. No token id begins with the prefix, unless
/// the issuer wants that.
pub(super) fn issuer_session(issuer: &Issuer, sid: &Value) -> Result<String, RejectReason> {
    let name = sid.as_str().and_then(|sid| qualified_name(issuer, sid)).map(|name| format!("sid:{name}"));
    name.filter(|name| name.len() <= MAX_NAME_BYTES).ok_or(RejectReason::Claims("sid"))
}

/// A subject or client as this service records it, at most 255 bytes long.
pub(super) fn qualified_name(issuer: &Issuer, name: &str) -> Option<String> {
    if name.trim().is_empty() || name.chars().any(is_invisible) || is_reserved(name) {
        return None;
    }
    let name = qualify(issuer.name.as_deref(), name);
    (name.len() <= MAX_NAME_BYTES).then_some(name)
}

/// Whether a character could make one name look like another in a log. Names are no prose, so
/// characters that only shape their neighbours are not allowed either.
fn is_invisible(c: char) -> bool {
    is_control_or_invisible(c) || is_joiner_or_selector(c)
}
