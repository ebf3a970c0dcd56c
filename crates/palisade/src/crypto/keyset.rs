//! Parser for keysets: versioned keys as `2:<key>,1:<key>`, the primary key first.
//!
//! In: the text of `APP_KEYS__MASTER` or `APP_KEYS__INDEX`. Out: a key per version.
//! [`super::MasterKeyset`] and [`super::IndexKeys`] use it.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::{InvalidKeyText, key_bytes};

const FORMAT: InvalidKeyText =
    InvalidKeyText("expected `version:key` parts separated by commas, versions 1 to 65535, the key for new data first");
const DUPLICATE: InvalidKeyText =
    InvalidKeyText("a version or a key appears twice; give each key a version of its own");

/// Keys with their versions.
#[derive(Debug)]
pub(super) struct Keyset<K> {
    /// The key for new data.
    pub(super) primary: (u16, K),
    /// Keys for existing data.
    others: Vec<(u16, K)>,
}

impl<K> Keyset<K> {
    /// Parses `2:<32 bytes in base64>,1:<32 bytes in base64>`, and makes each key from its bytes.
    pub(super) fn parse<E>(text: &str, new_key: impl Fn(&[u8; 32]) -> Result<K, E>) -> Result<Self, InvalidKeyText> {
        let mut entries: Vec<(u16, Zeroizing<[u8; 32]>)> = Vec::new();
        for part in text.split(',') {
            let (version, key) = part.trim().split_once(':').ok_or(FORMAT)?;
            // `parse` alone would accept a leading `+`.
            let only_digits = version.bytes().all(|b| b.is_ascii_digit());
            let version = version.parse().ok().filter(|version| only_digits && *version > 0);
            entries.push((version.ok_or(FORMAT)?, key_bytes(key)?));
        }
        let versions: BTreeSet<_> = entries.iter().map(|(version, _)| version).collect();
        let keys: BTreeSet<_> = entries.iter().map(|(_, key)| key.as_slice()).collect();
        if versions.len() != entries.len() || keys.len() != entries.len() {
            return Err(DUPLICATE);
        }
        let key = |(version, bytes): &(u16, Zeroizing<_>)| new_key(bytes).map(|key| (*version, key));
        let mut keys = entries.iter().map(|entry| key(entry).map_err(|_| FORMAT));
        let primary = keys.next().ok_or(FORMAT)??;
        Ok(Self { primary, others: keys.collect::<Result<_, _>>()? })
    }

    /// All keys, the primary one first.
    pub(super) fn all(&self) -> impl Iterator<Item = &(u16, K)> {
        std::iter::once(&self.primary).chain(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::{super::NOT_RANDOM, *};

    #[test]
    fn crypto_04_keyset_rejects_duplicate_versions_and_keys() {
        let key = |first: u8| STANDARD.encode((first..first + 32).collect::<Vec<_>>());
        let a = key(0);
        let b = key(64);
        let parse = |text: &str| Keyset::parse(text, |bytes| Ok::<_, ()>(bytes[0]));
        let keys = parse(&format!(" 7:{a}, 3:{b} ")).unwrap();
        assert_eq!((keys.primary, keys.all().copied().collect::<Vec<_>>()), ((7, 0), vec![(7, 0), (3, 64)]));
        for (text, error) in [
            (String::new(), FORMAT),
            (a.clone(), FORMAT),
            (format!("0:{a}"), FORMAT),
            (format!("+1:{a}"), FORMAT),
            (format!("65536:{a}"), FORMAT),
            (format!("1:{a},"), FORMAT),
            ("1:c2hvcnQ=".to_owned(), NOT_RANDOM),
            (format!("1:{a},1:{b}"), DUPLICATE),
            (format!("1:{a},2:{a}"), DUPLICATE),
        ] {
            assert_eq!(parse(&text).unwrap_err(), error, "{text}");
        }
    }
}
