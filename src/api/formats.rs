//! The text formats of the service's operations. The types of [`crate::domain`] parse the same
//! texts.

use palisade::http::text::formats::prose;

use crate::domain;
pub(crate) use palisade::http::text::formats::{Cursor, IdempotencyKey, MaybeMasked, Name, Subject};

palisade::formats! {
    /// Free text on an order. Line feeds are allowed.
    pub(crate) Note, 1..=domain::Note::MAX_CHARS, prose("\n");
    /// Reference of a payment in another system.
    pub(crate) Reference, 1..=domain::Reference::MAX_CHARS, prose("");
    /// Reason for a refund.
    pub(crate) Reason, 1..=domain::Reason::MAX_CHARS, prose("");
    /// A postal address. Line feeds are allowed.
    pub(crate) Address, 1..=300, prose("\n");
    /// An e-mail address. An internationalised domain is in its ASCII form (RFC 5890 section
    /// 2.3.2.1).
    pub(crate) Email, 3..=254, format!(
        r"^[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{label}(?:\.{label})*$",
        label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    );
    /// A telephone number: 7 to 15 digits (ITU-T E.164) with optional spaces, hyphens and
    /// parentheses.
    pub(crate) Phone, 8..=32, r"^\+[ ()-]*[1-9](?:[ ()-]*[0-9]){6,14}[ ()-]*$";
    /// A tax identifier.
    pub(crate) TaxId, 4..=20, "^[A-Za-z0-9-]+$";
    /// An IBAN (ISO 13616), without spaces or in groups of four.
    pub(crate) BankAccount, 15..=42,
        "^[A-Z]{2}[0-9]{2}(?:[A-Za-z0-9]{11,30}|(?: [A-Za-z0-9]{4}){2,7}(?: [A-Za-z0-9]{1,4})?)$";
    /// A stock keeping unit in a request, in upper or lower case.
    pub(crate) AnySku, 3..=64, "^[A-Za-z0-9-]+$";
    /// A stock keeping unit as stored, in upper case.
    pub(crate) Sku, 3..=64, "^[A-Z0-9-]+$";
    /// An ISO 4217 currency code.
    pub(crate) Currency, 3..=3, "^[A-Z]{3}$";
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use palisade::http::text::{TextFormat, formats::difference};

    #[test]
    fn input_06_prose_patterns_of_the_service_agree_with_the_domain() {
        assert_eq!(difference::<Note, domain::Note>(), None);
        assert_eq!(difference::<Address, domain::Address>(), None);
        for text in ["", " ", "\n", "\u{200d}", "\u{200d} \u{200d}", "a\u{7}", "a\u{202e}b"] {
            assert!(!Note::rules().matches(text), "{text:?}");
        }
        assert!(Note::rules().matches("one\ntwo"));
    }

    #[test]
    fn input_02_formats_agree_with_domain_types() {
        fn accepted<F: TextFormat, D: FromStr>(texts: &[&str]) {
            for text in texts {
                assert!(F::rules().matches(text) && text.parse::<D>().is_ok(), "{text}");
            }
        }
        fn rejected<F: TextFormat, D: FromStr>(texts: &[&str]) {
            for text in texts {
                assert!(!F::rules().matches(text) && text.parse::<D>().is_err(), "{text:?}");
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
