use super::Reader;

/// Calls per minute (RATE-02, RATE-03, RATE-04). All of a quota may be used at once; it comes back evenly.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// `APP_QUOTA__READ_PER_MINUTE`, default 100: reads of one principal.
    pub read: u32,
    /// `APP_QUOTA__WRITE_PER_MINUTE`, default 60: changes of one principal.
    pub write: u32,
    /// `APP_QUOTA__SENSITIVE_PER_MINUTE`, default 20: changes of one principal that move money or destroy something.
    pub sensitive: u32,
    /// `APP_QUOTA__TENANT_PER_MINUTE`, default 2000: calls of all principals of a tenant together.
    pub tenant: u32,
}

impl Quota {
    pub(super) fn read(r: &mut Reader) -> Self {
        let mut per_minute = |key, default| r.within(key, default, 1..=1_000_000);
        Self {
            read: per_minute("quota.read_per_minute", 100),
            write: per_minute("quota.write_per_minute", 60),
            sensitive: per_minute("quota.sensitive_per_minute", 20),
            tenant: per_minute("quota.tenant_per_minute", 2_000),
        }
    }
}
