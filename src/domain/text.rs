//! Texts that people write: in one form (Unicode NFC), trimmed, bounded, and without characters that hide something (INPUT-06).

use std::str::FromStr;

use thiserror::Error;
use unicode_normalization::UnicodeNormalization as _;

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// Nothing that could be seen.
    #[error("the text is empty")]
    Empty,
    /// Longer than allowed.
    #[error("the text is too long")]
    TooLong,
    /// Holds a character that could forge a log line, hide text or turn it around.
    #[error("the text holds a character that hides something")]
    Hidden,
}

/// Control characters, and those that turn text around, take no place or look like a blank: with them a text looks like
/// another one (CVE-2021-42574). Joiners and variation selectors are no such characters: they are part of how some
/// languages and emoji are written.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}'
        )
        || matches!(c, '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff0}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e00ff}' | '\u{e01f0}'..='\u{e0fff}')
}

/// Characters that shape those beside them, and nothing where they stand alone: joiners and variation selectors.
pub(crate) fn is_shaping(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{fe00}'..='\u{fe0f}')
        || matches!(c, '\u{e0100}'..='\u{e01ef}')
}

/// The text in Unicode's composed form (UAX #15) and trimmed, if it has 1 to `max` characters then and hides nothing;
/// where allowed, it has lines.
pub(super) fn clean(text: &str, max: usize, line_feeds: bool) -> Result<String, TextError> {
    let text: String = text.nfc().collect();
    let text = text.trim();
    if text.chars().all(|c| is_shaping(c) || c.is_whitespace()) {
        return Err(TextError::Empty);
    }
    if text.chars().count() > max {
        return Err(TextError::TooLong);
    }
    if text.chars().any(|c| is_hidden(c) && !(c == '\n' && line_feeds)) {
        return Err(TextError::Hidden);
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

            /// The text.
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
