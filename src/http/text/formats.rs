//! All text formats of the API: lengths and patterns.
//!
//! A text outside its format is a 400. The domain types reject a few texts that a pattern cannot
//! express, and operations answer those with 422: wrong check digits, hidden characters above
//! U+FFFF, and texts that become too long by Unicode composition. Home of INPUT-06 for texts.

use std::{fmt::Write as _, sync::LazyLock};

use super::{TextFormat, TextRules};
use crate::domain::{self, is_control_or_invisible, is_joiner_or_selector};

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident, $min_length:literal..=$max_length:expr, $pattern:expr;)+) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl TextFormat for $name {
            fn rules() -> &'static TextRules {
                static RULES: LazyLock<TextRules> =
                    LazyLock::new(|| TextRules::new($min_length, $max_length, String::from($pattern)));
                &RULES
            }
        }
    )+};
}

formats! {
    /// The name of a customer, a product or an API key.
    Name, 1..=domain::Name::MAX_CHARS, prose("");
    /// Free text on an order. Line feeds are allowed.
    Note, 1..=domain::Note::MAX_CHARS, prose("\n");
    /// Reference of a payment in another system.
    Reference, 1..=domain::Reference::MAX_CHARS, prose("");
    /// Reason for a refund.
    Reason, 1..=domain::Reason::MAX_CHARS, prose("");
    /// A postal address. Line feeds are allowed.
    Address, 1..=300, prose("\n");
    /// An e-mail address. An internationalised domain is in its ASCII form (RFC 5890 section
    /// 2.3.2.1).
    Email, 3..=254, format!(
        r"^[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{label}(?:\.{label})*$",
        label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    );
    /// A telephone number: 7 to 15 digits (ITU-T E.164) with optional spaces, hyphens and
    /// parentheses.
    Phone, 8..=32, r"^\+[ ()-]*[1-9](?:[ ()-]*[0-9]){6,14}[ ()-]*$";
    /// A tax identifier.
    TaxId, 4..=20, "^[A-Za-z0-9-]+$";
    /// An IBAN (ISO 13616), without spaces or in groups of four.
    BankAccount, 15..=42,
        "^[A-Z]{2}[0-9]{2}(?:[A-Za-z0-9]{11,30}|(?: [A-Za-z0-9]{4}){2,7}(?: [A-Za-z0-9]{1,4})?)$";
    /// A field of personal data, or its mask: four asterisks and at most the last four characters.
    MaybeMasked, 1..=300, format!(r"^[^{}]+$", class(|c| is_control_or_invisible(c) && c != '\n'));
    /// A stock keeping unit in a request, in upper or lower case.
    AnySku, 3..=64, "^[A-Za-z0-9-]+$";
    /// A stock keeping unit as stored, in upper case.
    Sku, 3..=64, "^[A-Z0-9-]+$";
    /// An ISO 4217 currency code.
    Currency, 3..=3, "^[A-Z]{3}$";
    /// A subject or client id. `authn` accepts the same from a token.
    Subject, 1..=255, subject();
    /// An API key. The first part is the name of the service.
    ApiKey, 96..=160, "^[a-z0-9]*_[0-9A-Za-z]{44}_[0-9A-Za-z]{50}$";
    /// An idempotency key: visible ASCII that the caller chooses.
    IdempotencyKey, 1..=255, "^[!-~]+$";
    /// The action of an audit event.
    Action, 1..=64, "^[a-z_]+$";
    /// The object of an audit event.
    AuditObject, 1..=300, format!("^[^{}]+$", class(char::is_control));
    /// The reason that an operator gave for a command.
    OperatorReason, 1..=500, format!("^[^{}]+$", class(char::is_control));
    /// The trace id of a request (W3C Trace Context, section 3.2.2.3).
    TraceId, 32..=32, "^[0-9a-f]{32}$";
    /// A cursor: base64url of a 16-byte tag and a position of 3 to 64 characters.
    Cursor, 26..=107, "^[A-Za-z0-9_-]+$";
    /// An age recipient for an encrypted file (age-encryption.org/v1, "The X25519 recipient type").
    AgeRecipient, 62..=62, "^age1[02-9ac-hj-np-z]{58}$";
    /// A `Content-Disposition` header with a file name (RFC 6266 section 4).
    Attachment, 30..=40, r#"^attachment; filename="[a-z]+\.csv(?:\.age)?"$"#;
    /// The path of a created object, in a `Location` header.
    Location, 1..=128, "^/v1/[a-z-]+/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
}

/// Pattern of prose: at least one visible character and no hidden ones, except those in
/// `line_breaks`.
///
/// The domain trims leading white space, so the pattern allows it.
fn prose(line_breaks: &str) -> String {
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

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn matches<F: TextFormat>(text: &str) -> bool {
        F::rules().matches(text)
    }

    /// Pattern and domain type agree on each character that a pattern can contain.
    fn assert_agreement<F: TextFormat, D: FromStr>() {
        for c in ('\0'..='\u{ffff}').chain(['\u{1f469}']) {
            for text in [format!("a{c}b"), c.to_string(), format!(" {c}\u{200d}")] {
                // The domain trims trailing control characters such as a tab; the pattern may
                // reject them.
                let is_trimmed = text.trim_end_matches(char::is_control) != text;
                assert!(is_trimmed || matches::<F>(&text) == text.parse::<D>().is_ok(), "{text:?}");
            }
        }
    }

    #[test]
    fn input_06_prose_patterns_agree_with_the_domain() {
        assert_agreement::<Name, domain::Name>();
        assert_agreement::<Note, domain::Note>();
        assert_agreement::<Address, domain::Address>();
        for text in ["", " ", "\n", "\u{200d}", "\u{200d} \u{200d}", "a\u{7}", "a\u{202e}b"] {
            assert!(!matches::<Name>(text) && !matches::<Note>(text), "{text:?}");
        }
        assert!(matches::<Note>("one\ntwo") && !matches::<Name>("one\ntwo"));
    }

    #[test]
    fn input_02_formats_agree_with_domain_types() {
        fn accepted<F: TextFormat, D: FromStr>(texts: &[&str]) {
            for text in texts {
                assert!(matches::<F>(text) && text.parse::<D>().is_ok(), "{text}");
            }
        }
        fn rejected<F: TextFormat, D: FromStr>(texts: &[&str]) {
            for text in texts {
                assert!(!matches::<F>(text) && text.parse::<D>().is_err(), "{text:?}");
            }
        }
        let longest = format!("{}@{}.example", "a".repeat(64), ["b".repeat(63), "c".repeat(63)].join("."));
        accepted::<Email, domain::Email>(&[
            "a@b",
            "A.b+c!#$%&'*/=?^_`{|}~-@x-1.example",
            "x@xn--bcher-kva.example",
            &longest,
        ]);
        let long = format!("{}@b", "a".repeat(65));
        rejected::<Email, domain::Email>(&[
            "@b",
            "a@",
            "a@b@c",
            "a@-b",
            "a@b-",
            "a@b..c",
            "a b@c",
            "a@bücher.example",
            &long,
        ]);
        accepted::<Phone, domain::Phone>(&["+49 (30) 1234-567", "+1234567", "+123456789012345", "+(1)234567-"]);
        rejected::<Phone, domain::Phone>(&[
            "+123456",
            "+1234567890123456",
            "+0123456789",
            "030 1234567",
            "+49x301234567",
        ]);
        accepted::<BankAccount, domain::BankAccount>(&[
            "DE89370400440532013000",
            "DE89 3704 0044 0532 0130 00",
            "GB82west12345698765432",
            "NO93 8601 1117 947",
            "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
        ]);
        rejected::<BankAccount, domain::BankAccount>(&["", "de89370400440532013000", "DE89 37040044 0532013000"]);
        accepted::<AnySku, domain::Sku>(&["abc", "A-1", &"A".repeat(64)]);
        rejected::<AnySku, domain::Sku>(&["ab", "A_1", &"A".repeat(65)]);
        accepted::<Currency, domain::Currency>(&["EUR"]);
        rejected::<Currency, domain::Currency>(&["eur", "EURO", "EU"]);
        accepted::<TaxId, domain::TaxId>(&["de-1", "DE123456789"]);
        rejected::<TaxId, domain::TaxId>(&["DE1", "DE 1234", "Ä123"]);
    }
}
