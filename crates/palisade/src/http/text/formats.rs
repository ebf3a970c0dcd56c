//! The text formats of the kernel's operations: lengths and patterns. A service declares its own
//! with [`formats!`](crate::formats).
//!
//! A text outside its format is a 400. The types reject a few texts that a pattern cannot express,
//! and operations answer those with 422: wrong check digits, hidden characters above U+FFFF, and
//! texts that become too long by Unicode composition. Home of INPUT-06 for texts.

use std::{fmt::Write as _, str::FromStr};

use super::TextFormat;
use crate::model::{self, is_control_or_invisible, is_joiner_or_selector};

/// Declares formats of texts: minimum and maximum length in characters, and a pattern that is
/// anchored at both ends.
#[macro_export]
macro_rules! formats {
    ($($(#[$doc:meta])* $vis:vis $name:ident, $min_length:literal..=$max_length:expr, $pattern:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        $vis struct $name;

        impl $crate::http::text::TextFormat for $name {
            fn rules() -> &'static $crate::http::text::TextRules {
                static RULES: ::std::sync::LazyLock<$crate::http::text::TextRules> = ::std::sync::LazyLock::new(|| {
                    $crate::http::text::TextRules::new($min_length, $max_length, ::std::string::String::from($pattern))
                });
                &RULES
            }
        }
    )+};
}

formats! {
    /// A display name, such as that of an API key.
    pub Name, 1..=model::Name::MAX_CHARS, prose("");
    /// A field of personal data, or its mask: four asterisks and at most the last four characters.
    pub MaybeMasked, 1..=300, format!(r"^[^{}]+$", class(|c| is_control_or_invisible(c) && c != '\n'));
    /// A subject or client id. `authn` accepts the same from a token.
    pub Subject, 1..=255, subject();
    /// An API key. The first part is the name of the service.
    pub ApiKey, 96..=160, "^[a-z0-9]*_[0-9A-Za-z]{44}_[0-9A-Za-z]{50}$";
    /// An idempotency key: visible ASCII that the caller chooses.
    pub IdempotencyKey, 1..=255, "^[!-~]+$";
    /// The action of an audit event.
    pub Action, 1..=64, "^[a-z_]+$";
    /// The object of an audit event.
    pub AuditObject, 1..=300, format!("^[^{}]+$", class(char::is_control));
    /// An absolute URL.
    pub Url, 8..=2_048, "^https?://[!-~]+$";
    /// The name of a table or column.
    pub SqlName, 1..=63, "^[a-z0-9_]+$";
    /// A value that an audit event has: a number, boolean, UUID, state, currency code or digest.
    pub ChangedValue, 1..=200, "^[A-Za-z0-9_.-]+$";
    /// The reason that an operator gave for a command.
    pub OperatorReason, 1..=500, format!("^[^{}]+$", class(char::is_control));
    /// The trace id of a request (W3C Trace Context, section 3.2.2.3).
    pub TraceId, 32..=32, "^[0-9a-f]{32}$";
    /// A cursor: base64url of a 16-byte tag and a position of 3 to 64 characters.
    pub Cursor, 26..=107, "^[A-Za-z0-9_-]+$";
    /// An age recipient for an encrypted file (age-encryption.org/v1, "The X25519 recipient type").
    pub AgeRecipient, 62..=62, "^age1[02-9ac-hj-np-z]{58}$";
    /// A `Content-Disposition` header with a file name (RFC 6266 section 4).
    pub Attachment, 30..=40, r#"^attachment; filename="[a-z]+\.csv(?:\.age)?"$"#;
    /// The path of a created object, in a `Location` header.
    pub Location, 1..=128, "^/v1/[a-z-]+/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
}

/// Pattern of prose: at least one visible character and no hidden ones, except those in
/// `line_breaks`.
///
/// The types of [`texts!`](crate::texts) trim leading white space, so the pattern allows it.
#[must_use]
pub fn prose(line_breaks: &str) -> String {
    let is_forbidden = |c| is_control_or_invisible(c) && !line_breaks.contains(c);
    let is_invisible = |c: char| c.is_whitespace() || is_joiner_or_selector(c);
    let leading = class(|c| is_invisible(c) && !is_forbidden(c));
    format!("^[{leading}]*[^{}][^{}]*$", class(|c| is_invisible(c) || is_forbidden(c)), class(is_forbidden))
}

/// Pattern of subjects: as [`prose`], and without joiners and variation selectors.
fn subject() -> String {
    let is_forbidden = |c| is_control_or_invisible(c) || is_joiner_or_selector(c);
    let leading = class(|c| c.is_whitespace() && !is_forbidden(c));
    format!("^[{leading}]*[^{}][^{}]*$", class(|c| c.is_whitespace() || is_forbidden(c)), class(is_forbidden))
}

/// The content of a character class with all characters up to U+FFFF for which `includes` is true.
///
/// Characters above U+FFFF have no notation that all regex engines share: ECMA 262 without the `u`
/// flag reads each as two.
fn class(includes: impl Fn(char) -> bool) -> String {
    let mut class = String::new();
    let mut first = None;
    for code in 0..=0x1_0000_u32 {
        let inside = code <= 0xffff && char::from_u32(code).is_some_and(&includes);
        match (first, inside) {
            (None, true) => first = Some(code),
            (Some(start), false) => {
                let last = code - 1;
                // Writing to a String cannot fail.
                let _ = write!(class, "\\u{start:04x}");
                if last > start {
                    let _ = write!(class, "-\\u{last:04x}");
                }
                first = None;
            }
            _ => {}
        }
    }
    class
}

/// A text that only one of the format `F` and the type `D` accepts, for tests of formats of prose.
/// It tries each character that a pattern can contain.
#[must_use]
pub fn difference<F: TextFormat, D: FromStr>() -> Option<String> {
    let characters = ('\0'..='\u{ffff}').chain(['\u{1f469}']);
    let mut texts = characters.flat_map(|c| [format!("a{c}b"), c.to_string(), format!(" {c}\u{200d}")]);
    texts.find(|text| {
        // The type trims trailing control characters such as a tab; the pattern may reject them.
        let is_trimmed = text.trim_end_matches(char::is_control) != text;
        !is_trimmed && F::rules().matches(text) != text.parse::<D>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_06_prose_patterns_agree_with_the_types() {
        assert_eq!(difference::<Name, model::Name>(), None);
        for text in ["", " ", "\n", "\u{200d}", "\u{200d} \u{200d}", "a\u{7}", "a\u{202e}b", "one\ntwo"] {
            assert!(!Name::rules().matches(text), "{text:?}");
        }
    }
}
