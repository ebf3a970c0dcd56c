//! The forms of texts. What the domain refuses and a pattern cannot say is answered with 422: check digits, characters
//! that hide something far above the others, and what grows when it is composed.

use std::{fmt::Write as _, sync::LazyLock};

use super::{Form, Shape};
use crate::domain::{self, is_hidden, is_shaping};

macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident, $shortest:literal..=$longest:expr, $pattern:expr;)+) => {$(
        $(#[$doc])*
        pub(in crate::api) struct $name;

        impl Form for $name {
            fn shape() -> &'static Shape {
                static SHAPE: LazyLock<Shape> =
                    LazyLock::new(|| Shape::new($shortest, $longest, String::from($pattern)));
                &SHAPE
            }
        }
    )+};
}

forms! {
    /// The name of a customer, a product or an API key.
    Name, 1..=domain::Name::MAX_CHARS, prose("");
    /// Free text on an order, in lines.
    Note, 1..=domain::Note::MAX_CHARS, prose("\n");
    /// How a payment is found elsewhere.
    Reference, 1..=domain::Reference::MAX_CHARS, prose("");
    /// Why money was given back.
    Reason, 1..=domain::Reason::MAX_CHARS, prose("");
    /// A postal address, in lines.
    Address, 1..=300, prose("\n");
    /// An e-mail address. An internationalised domain is written in ASCII (RFC 5890 section 2.3.2.1).
    Email, 3..=254, format!(
        r"^[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{label}(?:\.{label})*$",
        label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    );
    /// A telephone number: 7 to 15 digits (ITU-T E.164), however they are set apart.
    Phone, 8..=32, r"^\+[ ()-]*[1-9](?:[ ()-]*[0-9]){6,14}[ ()-]*$";
    /// A tax identifier.
    TaxId, 4..=20, "^[A-Za-z0-9-]+$";
    /// An IBAN in one piece or in groups of four (ISO 13616).
    BankAccount, 15..=42,
        "^[A-Z]{2}[0-9]{2}(?:[A-Za-z0-9]{11,30}|(?: [A-Za-z0-9]{4}){2,7}(?: [A-Za-z0-9]{1,4})?)$";
    /// A field about a person, or what is left of it: four asterisks and at most its last four characters.
    Shown, 1..=300, format!(r"^[^{}]+$", class(|c| is_hidden(c) && c != '\n'));
    /// A stock keeping unit as callers write it.
    AnySku, 3..=64, "^[A-Za-z0-9-]+$";
    /// A stock keeping unit as it is kept.
    Sku, 3..=64, "^[A-Z0-9-]+$";
    /// An ISO 4217 code.
    Currency, 3..=3, "^[A-Z]{3}$";
    /// Who a credential is for, or which client presented it; as `authn` takes it from a token.
    Subject, 1..=255, subject();
    /// An API key. The first part is the service's name.
    ApiKey, 96..=160, "^[a-z0-9]*_[0-9A-Za-z]{44}_[0-9A-Za-z]{50}$";
    /// Whatever the caller tells its requests apart by.
    IdempotencyKey, 1..=255, "^[!-~]+$";
    /// What an audit event says was done.
    Action, 1..=64, "^[a-z_]+$";
    /// What an audit event says it was done to.
    AuditObject, 1..=300, format!("^[^{}]+$", class(char::is_control));
    /// Why an operator did something.
    OperatorReason, 1..=500, format!("^[^{}]+$", class(char::is_control));
    /// The name of a request (W3C Trace Context, section 3.2.2.3).
    TraceId, 32..=32, "^[0-9a-f]{32}$";
    /// A place in a list: base64url of 16 bytes and 3 to 64 characters.
    Cursor, 26..=107, "^[A-Za-z0-9_-]+$";
    /// Whom a file is encrypted to (age-encryption.org/v1, section "The X25519 recipient type").
    AgeRecipient, 62..=62, "^age1[02-9ac-hj-np-z]{58}$";
    /// How a browser keeps a file (RFC 6266 section 4).
    Attachment, 30..=40, r#"^attachment; filename="[a-z]+\.csv(?:\.age)?"$"#;
    /// The path of what was created.
    Location, 1..=128, "^/v1/[a-z-]+/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
}

/// Prose: something to see, and nothing that hides something; blanks around it are left out, and `breaks` are allowed.
fn prose(breaks: &str) -> String {
    let barred = |c| is_hidden(c) && !breaks.contains(c);
    let unseen = |c: char| c.is_whitespace() || is_shaping(c);
    let before = class(|c| unseen(c) && !barred(c));
    format!("^[{before}]*[^{}][^{}]*$", class(|c| unseen(c) || barred(c)), class(barred))
}

fn subject() -> String {
    let barred = |c| is_hidden(c) || is_shaping(c);
    let before = class(|c| c.is_whitespace() && !barred(c));
    format!("^[{before}]*[^{}][^{}]*$", class(|c| c.is_whitespace() || barred(c)), class(barred))
}

/// The characters of which it holds, up to U+FFFF, as a class of a pattern. Those above cannot be written so that all
/// read the same: to ECMA 262 without the `u` flag each is two.
fn class(holds: impl Fn(char) -> bool) -> String {
    let mut class = String::new();
    let mut first = None;
    for code in 0..=0x1_0000_u32 {
        let inside = code <= 0xffff && char::from_u32(code).is_some_and(&holds);
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

    fn fits<F: Form>(text: &str) -> bool {
        F::shape().fits(text)
    }

    /// What the pattern says is what the domain does, for each character that a pattern can name.
    fn agree<F: Form, D: FromStr>() {
        for c in ('\0'..='\u{ffff}').chain(['\u{1f469}']) {
            for text in [format!("a{c}b"), c.to_string(), format!(" {c}\u{200d}")] {
                // Prose may end in what is cut off, such as a tab; its pattern need not allow that.
                let cut = text.trim_end_matches(char::is_control) != text;
                assert!(cut || fits::<F>(&text) == text.parse::<D>().is_ok(), "{text:?}");
            }
        }
    }

    #[test]
    fn input_06_prose_is_published_as_it_is_taken() {
        agree::<Name, domain::Name>();
        agree::<Note, domain::Note>();
        agree::<Address, domain::Address>();
        for text in ["", " ", "\n", "\u{200d}", "\u{200d} \u{200d}", "a\u{7}", "a\u{202e}b"] {
            assert!(!fits::<Name>(text) && !fits::<Note>(text), "{text:?}");
        }
        assert!(fits::<Note>("one\ntwo") && !fits::<Name>("one\ntwo"));
    }

    #[test]
    fn input_02_what_fits_its_form_fits_the_domain() {
        fn both<F: Form, D: FromStr>(texts: &[&str]) {
            for text in texts {
                assert!(fits::<F>(text) && text.parse::<D>().is_ok(), "{text}");
            }
        }
        fn neither<F: Form, D: FromStr>(texts: &[&str]) {
            for text in texts {
                assert!(!fits::<F>(text) && text.parse::<D>().is_err(), "{text:?}");
            }
        }
        let longest = format!("{}@{}.example", "a".repeat(64), ["b".repeat(63), "c".repeat(63)].join("."));
        both::<Email, domain::Email>(&[
            "a@b",
            "A.b+c!#$%&'*/=?^_`{|}~-@x-1.example",
            "x@xn--bcher-kva.example",
            &longest,
        ]);
        let long = format!("{}@b", "a".repeat(65));
        neither::<Email, domain::Email>(&[
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
        both::<Phone, domain::Phone>(&["+49 (30) 1234-567", "+1234567", "+123456789012345", "+(1)234567-"]);
        neither::<Phone, domain::Phone>(&[
            "+123456",
            "+1234567890123456",
            "+0123456789",
            "030 1234567",
            "+49x301234567",
        ]);
        both::<BankAccount, domain::BankAccount>(&[
            "DE89370400440532013000",
            "DE89 3704 0044 0532 0130 00",
            "GB82west12345698765432",
            "NO93 8601 1117 947",
            "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
        ]);
        neither::<BankAccount, domain::BankAccount>(&["", "de89370400440532013000", "DE89 37040044 0532013000"]);
        both::<AnySku, domain::Sku>(&["abc", "A-1", &"A".repeat(64)]);
        neither::<AnySku, domain::Sku>(&["ab", "A_1", &"A".repeat(65)]);
        both::<Currency, domain::Currency>(&["EUR"]);
        neither::<Currency, domain::Currency>(&["eur", "EURO", "EU"]);
        both::<TaxId, domain::TaxId>(&["de-1", "DE123456789"]);
        neither::<TaxId, domain::TaxId>(&["DE1", "DE 1234", "Ä123"]);
    }
}
