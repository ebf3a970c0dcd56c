//! Types of personal data, parsed and normalised (AUTHZ-06).
//!
//! A service declares them with [`personal_data!`](crate::personal_data). They cannot be printed or
//! serialised, and are wiped from memory when they are dropped. They are stored sealed (CRYPTO-02),
//! and callers without the right to plain text see them masked (LOG-02: no log line has them).

use thiserror::Error;

/// The text does not have the expected format. The error does not quote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not in the expected format")]
pub struct PersonalDataError;

/// The right to see personal data in plain text. Only
/// [`Permit::personal_data_access`](crate::authz::Permit::personal_data_access) grants it to a
/// service.
#[derive(Debug)]
pub struct PersonalDataAccess(());

impl PersonalDataAccess {
    /// Grants the right. For `authz` only, which decides by caller kind, role and operation.
    pub(crate) fn grant() -> Self {
        Self(())
    }
}

/// A type of personal data. Only [`personal_data!`](crate::personal_data) implements it.
pub trait PersonalData: Sized {
    /// The plain text, for code of the kernel that seals or indexes it.
    #[doc(hidden)]
    fn __text(&self) -> &str;

    /// Takes stored text without validation: stricter rules of a later version must not make a row
    /// unreadable.
    #[doc(hidden)]
    fn __from_stored(text: String) -> Self;

    /// The plain text, for a caller with the right to see it.
    fn plain(&self, _: &PersonalDataAccess) -> &str {
        Self::__text(self)
    }
}

/// Declares types of personal data, each with the function that parses and normalises it.
///
/// The function returns `None` for a text that is not in the format.
#[macro_export]
macro_rules! personal_data {
    ($($(#[$doc:meta])* $name:ident, $parse:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name($crate::model::__macro::SecretString);

        impl $name {
            /// The plain text, for a caller with the right to see it.
            pub fn expose(&self, access: &$crate::model::PersonalDataAccess) -> &str {
                $crate::model::PersonalData::plain(self, access)
            }
        }

        impl $crate::model::PersonalData for $name {
            fn __text(&self) -> &str {
                $crate::model::__macro::ExposeSecret::expose_secret(&self.0)
            }

            fn __from_stored(text: String) -> Self {
                Self(text.into())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::model::PersonalDataError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                let parse: fn(&str) -> Option<String> = $parse;
                parse(s).map(|text| Self(text.into())).ok_or($crate::model::PersonalDataError)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )+};
}

/// The masked text of a field, for callers without the right to plain text: `****` and the last four
/// characters. Text of less than 12 characters shows none, since four would be more than a third of
/// it. The length is not visible.
#[must_use]
pub fn masked(text: &str) -> String {
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
    }
}
