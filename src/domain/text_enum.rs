//! A macro for enumerations that are text on the wire and in the database.

use thiserror::Error;

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

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::domain::UnknownValue;

            fn from_str(s: &str) -> Result<Self, $crate::domain::UnknownValue> {
                match s { $($text => Ok(Self::$variant),)+ _ => Err($crate::domain::UnknownValue) }
            }
        }
    };
}
pub(super) use text_enum;

/// The text is not a value of the enumeration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unknown value")]
pub struct UnknownValue;
