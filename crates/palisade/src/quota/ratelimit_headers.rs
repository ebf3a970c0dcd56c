//! The `RateLimit` and `RateLimit-Policy` headers of draft-ietf-httpapi-ratelimit-headers-10
//! (RATE-05).
//!
//! Structured fields (RFC 9651) that list each quota policy with its quota and window, and the
//! remaining calls.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{QuotaPolicy, QuotaStatus, WINDOW};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

pub(super) fn add(statuses: &[QuotaStatus], headers: &mut HeaderMap) {
    if statuses.is_empty() {
        return;
    }
    let mut policies = String::new();
    let mut limits = String::new();
    for status in statuses {
        let separator = if policies.is_empty() { "" } else { ", " };
        let QuotaPolicy { name, quota } = status.policy;
        // Writing to a String cannot fail.
        let _ = write!(policies, "{separator}\"{name}\";q={quota};w={}", WINDOW.as_secs());
        let _ = write!(limits, "{separator}\"{name}\";r={};t={}", status.remaining, status.seconds_to_reset());
    }
    for (name, value) in [(POLICY, policies), (LIMIT, limits)] {
        // Names and numbers always form a valid header value.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

impl QuotaStatus {
    /// Seconds until the bucket is full, rounded up.
    fn seconds_to_reset(&self) -> u64 {
        let used = u64::from(self.policy.quota.saturating_sub(self.remaining));
        (used * WINDOW.as_secs()).div_ceil(u64::from(self.policy.quota).max(1))
    }
}
