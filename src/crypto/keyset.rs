//! Parser for keysets: versioned keys as `2:<key>,1:<key>`, the primary key first.
//!
//! In: the text of `APP_KEYS__MASTER` or `APP_KEYS__INDEX`. Out: 32 bytes per version, wiped from
//! memory when they are dropped. [`super::MasterKeyset`] and [`super::IndexKeys`] use it.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::{InvalidKeyText, key_bytes};

/// Why a text is not a valid keyset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysetError {
    /// A part has no version, or an invalid one.
    #[error("expected `version:key` parts separated by commas, versions 1 to 65535, the key for new data first")]
    Format,
    /// A key is invalid.
    #[error(transparent)]
    Key(#[from] InvalidKeyText),
    /// Two parts have the same version or the same key.
    #[error("a version or a key appears twice; give each key a version of its own")]
    Duplicate,
}

/// A key with its version.
pub(super) type VersionedKey = (u16, Zeroizing<[u8; 32]>);

/// Parses `2:<32 bytes in base64>,1:<32 bytes in base64>`. Returns the primary key, for new data,
/// and the other keys, for existing data.
pub(super) fn parse(text: &str) -> Result<(VersionedKey, Vec<VersionedKey>), KeysetError> {
    let mut entries: Vec<VersionedKey> = Vec::new();
    for part in text.split(',') {
        let (version, key) = part.trim().split_once(':').ok_or(KeysetError::Format)?;
        // `parse` alone would accept a leading `+`.
        let only_digits = version.bytes().all(|b| b.is_ascii_digit());
        let version = version.parse().ok().filter(|version| only_digits && *version > 0).ok_or(KeysetError::Format)?;
        entries.push((version, Zeroizing::new(key_bytes(key)?)));
    }
    let versions: BTreeSet<_> = entries.iter().map(|(version, _)| version).collect();
    let keys: BTreeSet<_> = entries.iter().map(|(_, key)| key.as_slice()).collect();
    if versions.len() != entries.len() || keys.len() != entries.len() {
        return Err(KeysetError::Duplicate);
    }
    let mut entries = entries.into_iter();
    let primary = entries.next().ok_or(KeysetError::Format)?;
    Ok((primary, entries.collect()))
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    #[test]
    fn crypto_04_keyset_rejects_duplicate_versions_and_keys() {
        let key = |first: u8| STANDARD.encode((first..first + 32).collect::<Vec<_>>());
        let a = key(0);
        let b = key(64);
        let ((version, primary), others) = parse(&format!(" 7:{a}, 3:{b} ")).unwrap();
        assert_eq!((version, others.iter().map(|(version, _)| *version).collect::<Vec<_>>()), (7, vec![3]));
        assert_eq!(primary.as_slice(), (0..32).collect::<Vec<u8>>());
        for (text, error) in [
            (String::new(), KeysetError::Format),
            (a.clone(), KeysetError::Format),
            (format!("0:{a}"), KeysetError::Format),
            (format!("+1:{a}"), KeysetError::Format),
            (format!("65536:{a}"), KeysetError::Format),
            (format!("1:{a},"), KeysetError::Format),
            ("1:c2hvcnQ=".to_owned(), KeysetError::Key(InvalidKeyText)),
            (format!("1:{a},1:{b}"), KeysetError::Duplicate),
            (format!("1:{a},2:{a}"), KeysetError::Duplicate),
        ] {
            assert_eq!(parse(&text), Err(error), "{text}");
        }
    }
}
