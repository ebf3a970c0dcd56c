//! The store in which replicas count together (RATE-08).

use secrecy::ExposeSecret as _;

use super::{Reader, SharedQuota};

impl SharedQuota {
    /// `None` without a URL, or if it has a fault.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let shared = r.read_section(&Self::SECTION, &Self::url, Self::read_rows)?;
        if shared.url.expose_secret().starts_with("redis:") && shared.authorities.is_some() {
            r.fault(&Self::authorities.name(), "has no effect unless the URL is rediss://; remove it, or use TLS");
        }
        Some(shared)
    }
}
