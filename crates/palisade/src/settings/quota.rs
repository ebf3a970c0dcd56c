//! The store in which replicas count together (RATE-08).

use secrecy::ExposeSecret as _;

use super::{Reader, SharedQuota};

impl SharedQuota {
    /// `None` without a URL, or if it has a fault.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        if !r.has_section(&Self::SECTION, &Self::url) {
            return None;
        }
        let shared = Self::read_rows(r, None)?;
        if shared.url.expose_secret().starts_with("redis:") && shared.authorities.is_some() {
            r.fault(&Self::authorities.name(), "has no effect unless the URL is rediss://; remove it, or use TLS");
        }
        Some(shared)
    }
}
