//! The issuers of accepted tokens, and how their claims are read (AUTHN-04). docs/issuers.md has
//! worked examples.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Map, Value};

use super::{Issuer, Oidc, Reader, claim_matches};

/// The path of a value in a token: the name of a claim or, if it begins with `/`, a JSON pointer
/// (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(String);

impl ClaimPath {
    /// Looks the value up.
    #[must_use]
    pub fn find<'v>(&self, claims: &'v Map<String, Value>) -> Option<&'v Value> {
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
        Self::read(&mut Reader::new(variables.iter().map(owned).collect(), super::ServiceSections::of::<()>(&[])))
            .unwrap()
    }

    /// All issuers, the first one first.
    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        std::iter::once(&self.first).chain(&self.further)
    }
}

/// Recorded subjects begin with the name, so it has no separator and one spelling.
fn is_issuer_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=32).contains(&name.len()) && name.bytes().all(allowed)
}

impl Issuer {
    /// The first issuer, or the further one of this name.
    fn read(r: &mut Reader, name: Option<&str>) -> Option<Self> {
        if let Some(name) = name.filter(|name| !is_issuer_name(name)) {
            let message = "the name of a further issuer is 1 to 32 of `a-z`, `0-9`, `-` and `_`";
            r.fault(&Self::SECTION.path.instance_path(name), message);
        }
        let tenants = Self::tenants.resolve_name(name);
        if name.is_some() && !r.has(&tenants) {
            r.fault(&tenants, "is required: a further issuer is accepted for the tenants that it lists only");
        }
        let mut issuer = Self::read_rows(r, name, Some(name.map(str::to_owned)))?;
        if !r.has(&Self::service_scope_claim.resolve_name(name)) {
            issuer.service_scope_claim = issuer.scope_claim.clone();
        }
        claim_matches::check(&issuer, r);
        Some(issuer)
    }
}
