//! From what the schema lets through to domain types, all faults at once. What the schema forbids is answered with 400,
//! what it cannot say with 422.

use std::str::FromStr;

use crate::problem::{FieldError, Kind, Problem};

/// What was wrong so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<FieldError>);

impl Faults {
    /// The value, or `None` with the fault noted.
    pub(super) fn parse<T: FromStr>(&mut self, pointer: impl Into<String>, text: &str) -> Option<T> {
        self.note(pointer, "format", text.parse())
    }

    /// The same for a text that need not be there.
    pub(super) fn parse_optional<T: FromStr>(&mut self, pointer: &str, text: Option<&str>) -> Option<T> {
        text.and_then(|text| self.parse(pointer, text))
    }

    /// The value, or `None` with the fault noted under `code`.
    pub(super) fn note<T, E>(
        &mut self,
        pointer: impl Into<String>,
        code: &'static str,
        value: Result<T, E>,
    ) -> Option<T> {
        if value.is_err() {
            self.0.push(FieldError { pointer: pointer.into(), code });
        }
        value.ok()
    }

    /// The whole, if nothing was wrong with its parts.
    pub(super) fn finish<T>(self, whole: Option<T>) -> Result<T, Problem> {
        match whole {
            Some(whole) if self.0.is_empty() => Ok(whole),
            _ => Err(Problem::new(Kind::Unprocessable).errors(self.0)),
        }
    }
}
