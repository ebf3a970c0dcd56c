//! Base 62 encoding of 128-bit numbers: digits and letters only, always 22 characters.
//!
//! [`crate::authn`] writes the parts of API keys in it and parses them again. Text without
//! punctuation is selected as a whole by a double click, and scanners for secrets can match it.

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Length of an encoded number: the smallest that any `u128` fits in.
pub const BASE62_CHARS: usize = 22;

/// Encodes a number, most significant digit first, padded with zeros.
#[must_use]
pub fn base62(number: u128) -> String {
    let mut digits = [b'0'; BASE62_CHARS];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        let index = usize::try_from(rest % 62).unwrap_or_default();
        *digit = ALPHABET.get(index).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// Decodes text that [`base62`] made. `None` for any other text.
#[must_use]
pub fn from_base62(text: &str) -> Option<u128> {
    if text.len() != BASE62_CHARS {
        return None;
    }
    text.bytes().try_fold(0_u128, |number, byte| {
        let digit = ALPHABET.iter().position(|letter| *letter == byte)?;
        number.checked_mul(62)?.checked_add(u128::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base62_encoding_is_canonical() {
        for number in [0, 1, 61, 62, u128::MAX - 1, u128::MAX, 0x0190_a000_0000_7000_8000_0000_0000_ac3e] {
            let text = base62(number);
            assert_eq!((text.len(), from_base62(&text)), (22, Some(number)));
        }
        assert_eq!(base62(62 * 62 + 61), "000000000000000000010z");
        for bad in [
            "",
            "0",
            &"z".repeat(22),
            &"0".repeat(21),
            &"0".repeat(23),
            "000000000000000000000_",
            "00000000000000000000é",
        ] {
            assert_eq!(from_base62(bad), None, "{bad}");
        }
    }
}
