//! Free text of callers: normalised, trimmed, bounded, without deceptive characters (INPUT-06).
//!
//! Normalisation is Unicode NFC. Control characters, bidirectional overrides and invisible
//! characters are rejected, because they forge log lines and make one text look like another
//! (CVE-2021-42574).

use thiserror::Error;
use unicode_normalization::UnicodeNormalization as _;

/// Why a text is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// The text has no visible character.
    #[error("the text is empty")]
    Empty,
    /// The text exceeds the maximum length.
    #[error("the text is too long")]
    TooLong,
    /// The text contains a control character or an invisible character.
    #[error("the text contains a control or invisible character")]
    ForbiddenCharacter,
}

/// Whether a character is a control character, a bidirectional control, invisible, or looks blank.
///
/// Joiners and variation selectors are not among them: some languages and emoji need them.
pub(crate) fn is_control_or_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}'
        )
        || matches!(c, '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff0}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e00ff}' | '\u{e01f0}'..='\u{e0fff}')
}

/// Whether a character is a joiner or a variation selector. It changes the characters beside it,
/// and is invisible alone.
pub(crate) fn is_joiner_or_selector(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{fe00}'..='\u{fe0f}')
        || matches!(c, '\u{e0100}'..='\u{e01ef}')
}

/// Normalises text to NFC (UAX #15) and trims it. An error unless 1 to `max_chars` characters
/// remain and none is forbidden. `line_feeds` allows line feeds.
///
/// # Errors
/// The first rule that the text breaks.
pub fn normalize(text: &str, max_chars: usize, line_feeds: bool) -> Result<String, TextError> {
    let text: String = text.nfc().collect();
    let text = text.trim();
    if text.chars().all(|c| is_joiner_or_selector(c) || c.is_whitespace()) {
        return Err(TextError::Empty);
    }
    if text.chars().count() > max_chars {
        return Err(TextError::TooLong);
    }
    if text.chars().any(|c| is_control_or_invisible(c) && !(c == '\n' && line_feeds)) {
        return Err(TextError::ForbiddenCharacter);
    }
    Ok(text.to_owned())
}

/// Declares types of free text, each with its maximum length in characters.
///
/// `with line feeds` after the length allows line feeds.
#[macro_export]
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident, $max:literal $(with $line:ident feeds)?;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// Maximum length in characters.
            pub const MAX_CHARS: usize = $max;

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::model::TextError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                $crate::model::normalize(s, $max, $crate::texts!(@ $($line)?)).map(Self)
            }
        }
    )+};
    (@) => { false };
    (@ line) => { true };
}

texts! {
    /// A display name, such as that of an API key.
    Name, 200;
}
