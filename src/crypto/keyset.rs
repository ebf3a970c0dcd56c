use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::{KeyTextError, key_bytes};

/// The text is not a set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysetError {
    /// A part has no version, or one that is none.
    #[error("expected `version:key` parts separated by commas, versions 1 to 65535, the first for new data")]
    Form,
    /// A key is not one.
    #[error(transparent)]
    Key(#[from] KeyTextError),
    /// Two parts have one version, or two versions one key.
    #[error("every version and every key may be there once")]
    Twice,
}

/// A key and its version.
pub(super) type Version = (u16, Zeroizing<[u8; 32]>);

/// Reads `2:<32 bytes in base64>,1:<32 bytes in base64>`: the key for what is new, and those for what is still there.
pub(super) fn parse(text: &str) -> Result<(Version, Vec<Version>), KeysetError> {
    let mut versions: Vec<Version> = Vec::new();
    for part in text.split(',') {
        let (version, key) = part.trim().split_once(':').ok_or(KeysetError::Form)?;
        let digits = version.bytes().all(|b| b.is_ascii_digit());
        let version = version.parse().ok().filter(|version| digits && *version > 0).ok_or(KeysetError::Form)?;
        versions.push((version, Zeroizing::new(key_bytes(key)?)));
    }
    let numbers: BTreeSet<_> = versions.iter().map(|(version, _)| version).collect();
    let keys: BTreeSet<_> = versions.iter().map(|(_, key)| key.as_slice()).collect();
    if numbers.len() != versions.len() || keys.len() != versions.len() {
        return Err(KeysetError::Twice);
    }
    let mut versions = versions.into_iter();
    let first = versions.next().ok_or(KeysetError::Form)?;
    Ok((first, versions.collect()))
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    #[test]
    fn crypto_04_a_keyset_has_each_version_and_each_key_once() {
        let key = |first: u8| STANDARD.encode((first..first + 32).collect::<Vec<_>>());
        let (a, b) = (key(0), key(64));
        let versions = parse(&format!(" 7:{a}, 3:{b} ")).unwrap();
        let ((version, first), others) = versions;
        assert_eq!((version, others.iter().map(|(version, _)| *version).collect::<Vec<_>>()), (7, vec![3]));
        assert_eq!(first.as_slice(), (0..32).collect::<Vec<u8>>());
        for (text, error) in [
            (String::new(), KeysetError::Form),
            (a.clone(), KeysetError::Form),
            (format!("0:{a}"), KeysetError::Form),
            (format!("+1:{a}"), KeysetError::Form),
            (format!("65536:{a}"), KeysetError::Form),
            (format!("1:{a},"), KeysetError::Form),
            ("1:c2hvcnQ=".to_owned(), KeysetError::Key(KeyTextError)),
            (format!("1:{a},1:{b}"), KeysetError::Twice),
            (format!("1:{a},2:{a}"), KeysetError::Twice),
        ] {
            assert_eq!(parse(&text), Err(error), "{text}");
        }
    }
}
