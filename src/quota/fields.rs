//! `RateLimit` and `RateLimit-Policy`, as draft-ietf-httpapi-ratelimit-headers-10 has them: structured fields
//! (RFC 9651) that name each policy, its quota and window, and what is left of it.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Standing, WINDOW};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

pub(super) fn add(standings: &[Standing], headers: &mut HeaderMap) {
    if standings.is_empty() {
        return;
    }
    let (mut policies, mut limits) = (String::new(), String::new());
    for standing in standings {
        let separator = if policies.is_empty() { "" } else { ", " };
        let (name, quota) = (standing.policy.name, standing.policy.quota);
        // Writing to a String cannot fail.
        let _ = write!(policies, "{separator}\"{name}\";q={quota};w={}", WINDOW.as_secs());
        let _ = write!(limits, "{separator}\"{name}\";r={};t={}", standing.remaining, standing.reset());
    }
    for (name, value) in [(POLICY, policies), (LIMIT, limits)] {
        // Names and numbers are always a value.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

impl Standing {
    /// Seconds until all of the quota is there again, rounded up.
    fn reset(&self) -> u64 {
        let used = u64::from(self.policy.quota.saturating_sub(self.remaining));
        (used * WINDOW.as_secs()).div_ceil(u64::from(self.policy.quota).max(1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::Policy, *};
    use crate::domain::QuotaName;

    #[test]
    fn rate_05_the_fields_are_as_the_draft_has_them() {
        let of = |name, quota, remaining, wait| Standing { policy: Policy { name, quota }, remaining, wait };
        let mut headers = HeaderMap::new();
        add(&[], &mut headers);
        assert!(headers.is_empty());
        add(
            &[of(QuotaName::Read, 100, 99, None), of(QuotaName::Tenant, 2_000, 0, Some(Duration::from_millis(30)))],
            &mut headers,
        );
        assert_eq!(headers[POLICY], "\"read\";q=100;w=60, \"tenant\";q=2000;w=60");
        assert_eq!(headers[LIMIT], "\"read\";r=99;t=1, \"tenant\";r=0;t=60");
    }
}
