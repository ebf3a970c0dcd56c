//! Fields about a person. They neither print nor serialise, are wiped from memory when dropped, are stored sealed
//! (control CRYPTO-02), and leave the service masked for most (control AUTHZ-06).

use std::{fmt, str::FromStr};

use iban::IbanLike as _;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use validator::ValidateEmail as _;
use zeroize::Zeroizing;

use super::text::clean;
use crate::crypto::{Indexed, Sealable};

/// The text is not one of its kind. Never says what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not of the expected form")]
pub struct PersonalDataError;

macro_rules! personal {
    ($(#[$doc:meta])* $name:ident in $column:literal, $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SecretString);

        impl $name {
            /// All that may be seen of it without the right to see it: at most the last four characters,
            /// and none of a text so short that four are more than a third of it. Its length does not show.
            #[must_use]
            pub fn masked(&self) -> String {
                masked(self.0.expose_secret())
            }

            /// The plain text, for sealing and for who may see it.
            pub(crate) fn expose(&self) -> &str {
                self.0.expose_secret()
            }
        }

        impl Sealable for $name {
            const TABLE: &'static str = "customers";
            const COLUMN: &'static str = $column;

            fn plain(&self) -> &str {
                self.expose()
            }

            /// What is stored was in order when it was stored, whatever the rules are by now: who cannot be read any more
            /// cannot be erased either.
            fn from_sealed(text: String) -> Self {
                Self(text.into())
            }

            fn masked(&self) -> String {
                self.masked()
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
    /// An e-mail address of at most 254 characters (RFC 5321 section 4.5.3.1.3), in lower case: so are two of them equal
    /// for every mail server there is. In ASCII, a domain in other letters as its `xn--` form: else one address would have
    /// several texts, and two that look alike could be one.
    Email in "email", |s| {
        let text = s.trim().to_ascii_lowercase();
        (text.len() <= 254 && text.is_ascii() && text.validate_email()).then_some(text)
    }
}
personal! {
    /// A telephone number in international form (ITU-T E.164): `+`, then 7 to 15 digits.
    Phone in "phone", |s| {
        let text: String = s.trim().chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')')).collect();
        let digits = text.strip_prefix('+')?;
        let sound = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        (sound && !digits.starts_with('0')).then_some(text)
    }
}
personal! {
    /// A tax identifier: 4 to 20 letters, digits and hyphens, in upper case. Countries differ too much for more.
    TaxId in "tax_id", |s| {
        let text = s.trim().to_ascii_uppercase();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        ((4..=20).contains(&text.len()) && text.bytes().all(allowed)).then_some(text)
    }
}
personal! {
    /// An international bank account number (ISO 13616), with its check digits and its country's form checked.
    BankAccount in "bank_account", |s| s.trim().parse::<iban::Iban>().ok().map(|iban| iban.electronic_str().to_owned())
}
personal! {
    /// A postal address: 1 to 300 characters in lines.
    Address in "address", |s| clean(s, 300, true).ok()
}

impl Indexed for Email {
    /// In lower case, as all of them are.
    fn normal(&self) -> Zeroizing<String> {
        self.expose().to_owned().into()
    }
}

impl Indexed for TaxId {
    /// Without hyphens: people set them as they like.
    fn normal(&self) -> Zeroizing<String> {
        // As long as the text, so that it does not grow and leave a part behind.
        let mut normal = Zeroizing::new(String::with_capacity(self.expose().len()));
        normal.extend(self.expose().chars().filter(|c| *c != '-'));
        normal
    }
}

fn masked(text: &str) -> String {
    let length = text.chars().count();
    let shown = if length >= 12 { 4 } else { 0 };
    "****".chars().chain(text.chars().skip(length - shown)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authz_06_a_masked_field_shows_four_characters_at_most() {
        assert_eq!(masked("DE89370400440532013000"), "****3000");
        assert_eq!(masked("äöüßäöüßäöüß"), "****äöüß");
        assert_eq!(masked("+4917712345"), "****");
        assert_eq!(masked(""), "****");
        let email: Email = "someone@example.com".parse().unwrap();
        assert_eq!(format!("{email:?} {}", email.masked()), "Email(…) ****.com");
    }

    #[test]
    fn input_02_fields_about_a_person_have_their_form() {
        fn fits<T: FromStr>(text: &str) -> bool {
            text.parse::<T>().is_ok()
        }
        assert!(fits::<Email>(" Someone@Example.com ") && fits::<Email>("a.b+c@x.example"));
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
            assert!(!fits::<Email>(bad), "{bad:?}");
        }
        assert!(fits::<Phone>("+49 (30) 1234-567") && fits::<Phone>("+15551234567"));
        for bad in ["", "030123456", "+0123456789", "+123456", "+1234567890123456", "+49x301234567"] {
            assert!(!fits::<Phone>(bad), "{bad:?}");
        }
        assert!(fits::<TaxId>("de-123456789") && !fits::<TaxId>("DE1") && !fits::<TaxId>("DE 123456"));
        assert!(fits::<BankAccount>("DE89 3704 0044 0532 0130 00") && fits::<BankAccount>("GB82WEST12345698765432"));
        for bad in ["", "DE88370400440532013000", "XX89370400440532013000", "DE8937040044053201300"] {
            assert!(!fits::<BankAccount>(bad), "{bad:?}");
        }
        assert!(fits::<Address>("1 Main Street\nTown") && !fits::<Address>(" \n ") && !fits::<Address>("a\u{1b}b"));
    }
}
