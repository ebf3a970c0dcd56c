//! Marks: claims that separate the tokens of programs from those of users (AUTHN-07).
//!
//! `Issuer::read` reads and checks them, and `authn/verify.rs` applies them.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::{ClaimPath, Issuer, Reader};

/// `<claim>=<value>`. The value is `*` for any text, or has one `*` at its start or end; the rest
/// is compared exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimMatch {
    claim: ClaimPath,
    value: Pattern,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Exact(String),
    Prefix(String),
    Suffix(String),
}

impl ClaimMatch {
    /// Whether the claims contain it, as a text or as an item of a list.
    #[must_use]
    pub fn is_in(&self, claims: &Map<String, Value>) -> bool {
        self.claim.texts(claims).into_iter().any(|text| match &self.value {
            Pattern::Any => !text.trim().is_empty(),
            Pattern::Exact(whole) => text == whole,
            Pattern::Prefix(begin) => text.starts_with(begin),
            Pattern::Suffix(end) => text.ends_with(end),
        })
    }
}

impl FromStr for ClaimMatch {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let expected = "expected `<claim>=<value>`, with at most one `*`, at the start or end of the value";
        let (claim, value) = s.split_once('=').ok_or(expected)?;
        let text = |text: &str| {
            let plain = !text.is_empty() && text.trim() == text && !text.contains('*');
            if plain { Ok(text.to_owned()) } else { Err(expected) }
        };
        let claim_path = |claim: &str| {
            let is_plain =
                !claim.is_empty() && claim.trim() == claim && (claim.starts_with('/') || !claim.contains('*'));
            if is_plain { claim.parse() } else { Err(expected) }
        };
        let value = match (value, value.strip_suffix('*'), value.strip_prefix('*')) {
            ("*", _, _) => Pattern::Any,
            (_, Some(begin), _) => Pattern::Prefix(text(begin)?),
            (_, _, Some(end)) => Pattern::Suffix(text(end)?),
            _ => Pattern::Exact(text(value)?),
        };
        Ok(Self { claim: claim_path(claim)?, value })
    }
}

/// Adds a fault for marks that cannot separate users from programs.
pub(super) fn check(issuer: &Issuer, r: &mut Reader) {
    let name = issuer.name.as_deref();
    let (services, users) = (Issuer::service_claims.resolve_name(name), Issuer::user_claims.resolve_name(name));
    // Otherwise a program whose token lacks the mark by mistake would count as a user.
    if !issuer.service_claims.is_empty() && issuer.user_claims.is_empty() {
        r.fault(
            &users,
            "is required with service_claims: without it, any token lacking a service mark would count as a user's",
        );
    }
    if issuer.user_claims.iter().any(|mark| issuer.service_claims.contains(mark)) {
        r.fault(&users, "has a mark that service_claims has too");
    }
    // Every token has these; the first ones are the same in every token of the issuer.
    let has_name = |mark: &ClaimMatch, names: &[&str]| names.contains(&mark.claim.to_string().as_str());
    let always = [&issuer.subject_claim, &issuer.client_claim, &issuer.tenant_claim];
    for (setting, marks) in [(&services, &issuer.service_claims), (&users, &issuer.user_claims)] {
        let is_everywhere = |mark: &ClaimMatch| {
            let is_required = has_name(mark, &["sub", "azp"]) || always.contains(&&mark.claim);
            has_name(mark, &["iss", "aud", "exp", "iat"]) || mark.value == Pattern::Any && is_required
        };
        if marks.iter().any(is_everywhere) {
            r.fault(setting, "has a mark that every token of the issuer has; choose another claim");
        }
    }
    // The issuer grants scopes to programs too, and roles to whatever its administrators choose.
    let rights = [&issuer.service_scope_claim, &issuer.roles_claim];
    if issuer.user_claims.iter().any(|mark| mark.value == Pattern::Any && rights.contains(&&mark.claim)) {
        r.fault(
            &users,
            "has a mark that tokens of programs have too (roles_claim or service_scope_claim); choose another claim",
        );
    }
}
