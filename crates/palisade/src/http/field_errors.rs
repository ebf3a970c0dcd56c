//! Converts schema-checked input to domain types and collects all faults of a request.
//!
//! Operations call it after the schema check. A violation of the schema is a 400; a value that the
//! schema allows and the domain rejects (a check digit, say) is a 422 with one entry per fault.

use std::str::FromStr;

use crate::problem::{FieldError, Kind, Problem};

/// The faults of a request so far.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Parses a field. On failure, records the fault and returns `None`.
    pub fn parse<T: FromStr>(&mut self, pointer: impl Into<String>, text: &str) -> Option<T> {
        self.note(pointer, "format", text.parse())
    }

    /// Parses an optional field.
    pub fn parse_optional<T: FromStr>(&mut self, pointer: &str, text: Option<&str>) -> Option<T> {
        text.and_then(|text| self.parse(pointer, text))
    }

    /// Returns the value. On failure, records the fault under `code` and returns `None`.
    pub fn note<T, E>(&mut self, pointer: impl Into<String>, code: &'static str, value: Result<T, E>) -> Option<T> {
        if value.is_err() {
            self.0.push(FieldError { pointer: pointer.into(), code });
        }
        value.ok()
    }

    /// Returns the converted request if there was no fault, else a 422 with all of them.
    pub fn finish<T>(self, whole: Option<T>) -> Result<T, Problem> {
        match whole {
            Some(whole) if self.0.is_empty() => Ok(whole),
            _ => Err(Problem::new(Kind::Unprocessable).errors(self.0)),
        }
    }
}
