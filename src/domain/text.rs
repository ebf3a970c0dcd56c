use std::str::FromStr;

use thiserror::Error;

/// Free text on an order: 1 to 500 characters after trimming, without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note(String);

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

impl Note {
    /// Longest note, in characters.
    pub const MAX_CHARS: usize = 500;

    /// The trimmed text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Note {
    type Err = TextError;

    fn from_str(s: &str) -> Result<Self, TextError> {
        let text = s.trim();
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        if text.chars().count() > Self::MAX_CHARS {
            return Err(TextError::TooLong);
        }
        if text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(TextError::Control);
        }
        Ok(Self(text.to_owned()))
    }
}
