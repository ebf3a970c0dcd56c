//! Marks: claims by which the tokens of programs and of users are told apart (AUTHN-07).
//!
//! `Issuer::read` reads and checks them, and `authn/verify.rs` applies them.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::{Issuer, Reader, oidc::ClaimPath};

/// `<claim>=<value>`. The value is `*` for any text, or has one `*` at its start or end; the rest
/// is compared exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
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

impl Mark {
    /// Whether the claims have it: as a text, or as an item of a list.
    #[must_use]
    pub fn is_in(&self, claims: &Map<String, Value>) -> bool {
        match self.claim.of(claims) {
            Some(Value::Array(items)) => items.iter().any(|item| self.matches(item)),
            value => value.is_some_and(|value| self.matches(value)),
        }
    }

    fn matches(&self, value: &Value) -> bool {
        let Some(text) = value.as_str() else { return false };
        match &self.value {
            Pattern::Any => !text.trim().is_empty(),
            Pattern::Exact(whole) => text == whole,
            Pattern::Prefix(begin) => text.starts_with(begin),
            Pattern::Suffix(end) => text.ends_with(end),
        }
    }
}

impl FromStr for Mark {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let expected = "expected `<claim>=<value>`, with at most one `*`, at the start or end of the value";
        let (claim, value) = s.split_once('=').ok_or(expected)?;
        let text = |text: &str| {
            let plain = !text.is_empty() && text.trim() == text && !text.contains('*');
            if plain { Ok(text.to_owned()) } else { Err(expected) }
        };
        let value = match (value, value.strip_suffix('*'), value.strip_prefix('*')) {
            ("*", _, _) => Pattern::Any,
            (_, Some(begin), _) => Pattern::Prefix(text(begin)?),
            (_, _, Some(end)) => Pattern::Suffix(text(end)?),
            _ => Pattern::Exact(text(value)?),
        };
        let Ok(claim) = text(claim)?.parse();
        Ok(Self { claim, value })
    }
}

/// Adds a fault for marks that visibly do not tell users from programs.
pub(super) fn check(issuer: &Issuer, r: &mut Reader) {
    let (services, users) = (issuer.key("service_marks"), issuer.key("user_marks"));
    // Otherwise a program whose token lacks the mark, by an oversight, is taken for a user.
    if !issuer.service_marks.is_empty() && issuer.user_marks.is_empty() {
        r.fault(&users, "is required with service_marks: without a mark of its own a user is not told from a program");
    }
    if issuer.user_marks.iter().any(|mark| issuer.service_marks.contains(mark)) {
        r.fault(&users, "has a mark that service_marks has too");
    }
    let named = |name: &str| ClaimPath::from(name);
    // These are in every token, and the first four are the same in every token of the issuer.
    let constant = ["iss", "aud", "exp", "iat"].map(named);
    let always = [named("sub"), named("azp"), issuer.client_claim.clone(), issuer.tenant_claim.clone()];
    for (key, marks) in [(&services, &issuer.service_marks), (&users, &issuer.user_marks)] {
        let is_everywhere =
            |mark: &Mark| constant.contains(&mark.claim) || mark.value == Pattern::Any && always.contains(&mark.claim);
        if marks.iter().any(is_everywhere) {
            r.fault(key, "has a mark that every token of the issuer bears");
        }
    }
    // The issuer grants scopes to programs too, and roles to whatever its administrators choose.
    let rights = [&issuer.service_scope_claim, &issuer.roles_claim];
    if issuer.user_marks.iter().any(|mark| mark.value == Pattern::Any && rights.contains(&&mark.claim)) {
        r.fault(&users, "has a mark that tokens of programs bear too: roles_claim or service_scope_claim");
    }
}
