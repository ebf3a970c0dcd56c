//! Codes: identifiers that people choose, such as a stock keeping unit.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::AuditObject;

/// `MIN` to `MAX` characters of `[A-Z0-9-]`. Parsing converts to upper case, so `abc-1` and `ABC-1`
/// are the same code.
///
/// An audit event may name one, so a code must identify no person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code<const MIN: usize, const MAX: usize>(String);

/// The text is not a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected letters, digits and hyphens")]
pub struct CodeError;

impl<const MIN: usize, const MAX: usize> Code<MIN, MAX> {
    /// The upper-case text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MIN: usize, const MAX: usize> FromStr for Code<MIN, MAX> {
    type Err = CodeError;

    fn from_str(s: &str) -> Result<Self, CodeError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if (MIN..=MAX).contains(&s.len()) && s.bytes().all(allowed) {
            Ok(Self(s.to_ascii_uppercase()))
        } else {
            Err(CodeError)
        }
    }
}

impl<const MIN: usize, const MAX: usize> fmt::Display for Code<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MIN: usize, const MAX: usize> AuditObject for Code<MIN, MAX> {
    fn __object(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_05_code_of_an_audit_event_is_no_free_text() {
        type Sku = Code<3, 6>;
        assert_eq!("abc-1".parse::<Sku>().unwrap().__object(), "ABC-1");
        for bad in ["ab", "abcdefg", "a b c", "a@b.c", "äbc"] {
            assert_eq!(bad.parse::<Sku>(), Err(CodeError), "{bad}");
        }
    }
}
