use std::sync::Arc;

use super::Reader;
use crate::crypto::{IndexKeys, MasterKeys};

/// Keys of sealed fields (CRYPTO-04, CRYPTO-06). docs/keys.md says how they are made, rotated and kept.
#[derive(Clone, Debug)]
pub struct Keys {
    /// `APP_KEYS__MASTER`, required: master keys as `2:<key>,1:<key>`, 32 random bytes in base64 each. The first wraps new
    /// data keys.
    pub master: Arc<MasterKeys>,
    /// `APP_KEYS__INDEX`, required: keys of blind indexes in the same form. New rows are found by the first.
    pub index: Arc<IndexKeys>,
    /// `APP_KEYS__USUAL_PER_MINUTE`, default 300, 1 to 1000000: when a person sees more customers than this in plain text
    /// within a minute, there is a security event (CRYPTO-07).
    pub usual_per_minute: u32,
}

impl Keys {
    /// `None` if one is missing or unreadable; the reader then holds the faults.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let master = r.secret_with("keys.master", MasterKeys::from_text);
        let index = r.secret_with("keys.index", IndexKeys::from_text);
        let usual_per_minute = r.within("keys.usual_per_minute", 300, 1..=1_000_000);
        Some(Self { master: Arc::new(master?), index: Arc::new(index?), usual_per_minute })
    }
}
