//! Personal data of customers, parsed and normalised (AUTHZ-06).
//!
//! The types cannot be printed or serialised, and are wiped from memory when they are dropped. They
//! are stored sealed (CRYPTO-02), and callers without the right to plain text see them masked
//! (LOG-02: no log line has them).

use std::{fmt, str::FromStr};

use iban::IbanLike as _;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use validator::ValidateEmail as _;

use super::text::normalize;

/// The text does not have the expected format. The error does not quote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not in the expected format")]
pub struct PersonalDataError;

macro_rules! personal {
    ($(#[$doc:meta])* $name:ident, $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SecretString);

        impl $name {
            /// The masked text, for callers without the right to plain text: `****` and the last
            /// four characters. Text of less than 12 characters shows none, since four would be
            /// more than a third of it. The length is not visible.
            #[must_use]
            pub fn masked(&self) -> String {
                masked(self.0.expose_secret())
            }

            /// The plain text, for sealing and for a caller with the right to see it.
            pub(crate) fn expose(&self) -> &str {
                self.0.expose_secret()
            }

            /// Takes stored text without validation: stricter rules of a later version must not
            /// make a customer unreadable.
            pub(crate) fn from_stored(text: String) -> Self {
                Self(text.into())
            }
        }

        impl FromStr for $name {
            type Err = PersonalDataError;

            fn from_str(s: &str) -> Result<Self, PersonalDataError> {
                let parse: fn(&str) -> Option<String> = $parse;
                parse(s).map(|text| Self(text.into())).ok_or(PersonalDataError)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

personal! {
    /// An e-mail address of at most 254 characters (RFC 5321 section 4.5.3.1.3), in lower case:
    /// mail servers in practice ignore case. ASCII only, with internationalised domains in `xn--`
    /// form: otherwise one address could have several texts, and two could look alike.
    Email, |s| {
        let text = s.trim().to_ascii_lowercase();
        (text.len() <= 254 && text.is_ascii() && text.validate_email()).then_some(text)
    }
}
personal! {
    /// A telephone number in international form (ITU-T E.164): `+`, then 7 to 15 digits.
    Phone, |s| {
        let text: String = s.trim().chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')')).collect();
        let digits = text.strip_prefix('+')?;
        let valid = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        (valid && !digits.starts_with('0')).then_some(text)
    }
}
personal! {
    /// A tax identifier: 4 to 20 letters, digits and hyphens, in upper case. Formats of countries
    /// differ too much for a stricter rule.
    TaxId, |s| {
        let text = s.trim().to_ascii_uppercase();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        ((4..=20).contains(&text.len()) && text.bytes().all(allowed)).then_some(text)
    }
}
personal! {
    /// An international bank account number (ISO 13616), with valid check digits and the format of
    /// its country.
    BankAccount, |s| s.trim().parse::<iban::Iban>().ok().map(|iban| iban.electronic_str().to_owned())
}
personal! {
    /// A postal address: 1 to 300 characters, with line feeds.
    Address, |s| normalize(s, 300, true).ok()
}

fn masked(text: &str) -> String {
    let length = text.chars().count();
    let visible = if length >= 12 { 4 } else { 0 };
    "****".chars().chain(text.chars().skip(length - visible)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authz_06_masked_field_shows_at_most_four_characters() {
        assert_eq!(masked("DE89370400440532013000"), "****3000");
        assert_eq!(masked("äöüßäöüßäöüß"), "****äöüß");
        assert_eq!(masked("+4917712345"), "****");
        assert_eq!(masked(""), "****");
        let email: Email = "someone@example.com".parse().unwrap();
        assert_eq!(format!("{email:?} {}", email.masked()), "Email(…) ****.com");
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
