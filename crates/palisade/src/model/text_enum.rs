//! A macro for enumerations that are text on the wire and in the database.

use thiserror::Error;

/// Declares an enumeration, each value with its text on the wire and in the database.
#[macro_export]
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The text used on the wire and in the database.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::model::UnknownValue;

            fn from_str(s: &str) -> Result<Self, $crate::model::UnknownValue> {
                match s { $($text => Ok(Self::$variant),)+ _ => Err($crate::model::UnknownValue) }
            }
        }
    };
}

/// The text is not a value of the enumeration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unknown value")]
pub struct UnknownValue;
