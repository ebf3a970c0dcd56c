//! Personal data of customers: the formats that are accepted (AUTHZ-06).

use iban::IbanLike as _;
use palisade::model::normalize;
use validator::ValidateEmail as _;

palisade::personal_data! {
    /// An e-mail address of at most 254 characters (RFC 5321 section 4.5.3.1.3), in lower case:
    /// mail servers in practice ignore case. ASCII only, with internationalised domains in `xn--`
    /// form: otherwise one address could have several texts, and two could look alike.
    Email, |s| {
        let text = s.trim().to_ascii_lowercase();
        (text.len() <= 254 && text.is_ascii() && text.validate_email()).then_some(text)
    };
    /// A telephone number in international form (ITU-T E.164): `+`, then 7 to 15 digits.
    Phone, |s| {
        let text: String = s.trim().chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')')).collect();
        let digits = text.strip_prefix('+')?;
        let valid = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        (valid && !digits.starts_with('0')).then_some(text)
    };
    /// A tax identifier: 4 to 20 letters, digits and hyphens, in upper case. Formats of countries
    /// differ too much for a stricter rule.
    TaxId, |s| {
        let text = s.trim().to_ascii_uppercase();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        ((4..=20).contains(&text.len()) && text.bytes().all(allowed)).then_some(text)
    };
    /// An international bank account number (ISO 13616), with valid check digits and the format of
    /// its country.
    BankAccount, |s| s.trim().parse::<iban::Iban>().ok().map(|iban| iban.electronic_str().to_owned());
    /// A postal address: 1 to 300 characters, with line feeds.
    Address, |s| normalize(s, 300, true).ok();
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    #[test]
    fn authz_06_personal_data_is_printed_masked_only() {
        let email: Email = "someone@example.com".parse().unwrap();
        assert_eq!(format!("{email:?}"), "Email(…)");
    }

    #[test]
    fn input_02_personal_data_is_validated() {
        fn is_valid<T: FromStr>(text: &str) -> bool {
            text.parse::<T>().is_ok()
        }
        assert!(is_valid::<Email>(" Someone@Example.com ") && is_valid::<Email>("a.b+c@x.example"));
        for bad in [
            "",
            "someone",
            "@example.com",
            "a@b@c",
            "a b@example.com",
            "a@exam ple.com",
            "a@b.c\n.d",
            "a@b\u{fc}cher.example",
            "\u{212a}@b.c",
        ] {
            assert!(!is_valid::<Email>(bad), "{bad:?}");
        }
        assert!(is_valid::<Phone>("+49 (30) 1234-567") && is_valid::<Phone>("+15551234567"));
        for bad in ["", "030123456", "+0123456789", "+123456", "+1234567890123456", "+49x301234567"] {
            assert!(!is_valid::<Phone>(bad), "{bad:?}");
        }
        assert!(is_valid::<TaxId>("de-123456789") && !is_valid::<TaxId>("DE1") && !is_valid::<TaxId>("DE 123456"));
        assert!(
            is_valid::<BankAccount>("DE89 3704 0044 0532 0130 00") && is_valid::<BankAccount>("GB82WEST12345698765432")
        );
        for bad in ["", "DE88370400440532013000", "XX89370400440532013000", "DE8937040044053201300"] {
            assert!(!is_valid::<BankAccount>(bad), "{bad:?}");
        }
        assert!(
            is_valid::<Address>("1 Main Street\nTown")
                && !is_valid::<Address>(" \n ")
                && !is_valid::<Address>("a\u{1b}b")
        );
    }
}
