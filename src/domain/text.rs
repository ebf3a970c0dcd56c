//! Texts that people write: trimmed, bounded, and without control characters.

use std::str::FromStr;

use thiserror::Error;

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// Nothing but white space.
    #[error("the text is empty")]
    Empty,
    /// Longer than allowed.
    #[error("the text is too long")]
    TooLong,
    /// Holds a control character, which could forge a log line or hide text in a terminal.
    #[error("the text holds a control character")]
    Control,
}

/// The trimmed text, if it has 1 to `max` characters and no control character but, where allowed, line feeds.
pub(super) fn clean(text: &str, max: usize, line_feeds: bool) -> Result<String, TextError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    if text.chars().count() > max {
        return Err(TextError::TooLong);
    }
    if text.chars().any(|c| c.is_control() && !(c == '\n' && line_feeds)) {
        return Err(TextError::Control);
    }
    Ok(text.to_owned())
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $max:literal $(, $line_feeds:ident)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// Most characters.
            pub const MAX_CHARS: usize = $max;

            /// The trimmed text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TextError;

            fn from_str(s: &str) -> Result<Self, TextError> {
                clean(s, $max, text!(@ $($line_feeds)?)).map(Self)
            }
        }
    };
    (@) => { false };
    (@ line_feeds) => { true };
}

text! {
    /// Free text on an order.
    Note, 500, line_feeds
}
text! {
    /// The name of a customer, a product or an API key.
    Name, 200
}
text! {
    /// How a payment is found elsewhere, such as on a bank statement.
    Reference, 100
}
text! {
    /// Why money was given back.
    Reason, 200
}
