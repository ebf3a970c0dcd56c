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
}

impl Keys {
    /// `None` if one is missing or unreadable; the reader then holds the faults.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let master = r.required_with("keys.master", MasterKeys::from_text);
        let index = r.required_with("keys.index", IndexKeys::from_text);
        Some(Self { master: Arc::new(master?), index: Arc::new(index?) })
    }
}
