//! Texts in requests and responses, each with a format: minimum and maximum length, and a pattern.
//!
//! A format ([`formats`]) is defined once. The OpenAPI document, the check of bodies and the parser
//! of parameters all read that definition (home of INPUT-02 for texts). Operations use
//! [`Text<formats::…>`](Text) as the type of a field.

pub mod formats;

use std::{fmt, marker::PhantomData, ops::Deref};

use http::HeaderValue;
use poem_openapi::{
    registry::MetaSchema,
    types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToHeader, ToJSON},
};
use regex::Regex;
use serde_json::Value;

use crate::simple_type;

/// The format of a [`Text`].
pub trait TextFormat: Send + Sync + 'static {
    /// The rules that texts of this format follow.
    fn rules() -> &'static TextRules;
}

/// Bounds of the length in characters, and a pattern that is anchored at both ends.
#[derive(Debug)]
pub struct TextRules {
    min_length: usize,
    max_length: usize,
    pattern: String,
    compiled: Option<Regex>,
}

impl TextRules {
    /// Callers use the published pattern too: so it must mean the same in Rust, in Python and in
    /// ECMA 262, with and without the `u` flag.
    #[must_use]
    pub fn new(min_length: usize, max_length: usize, pattern: String) -> Self {
        let compiled = Regex::new(&pattern).ok();
        Self { min_length, max_length, pattern, compiled }
    }

    fn schema(&self) -> MetaSchema {
        MetaSchema {
            min_length: Some(self.min_length),
            max_length: Some(self.max_length),
            pattern: Some(self.pattern.clone()),
            ..MetaSchema::new("string")
        }
    }

    /// Whether a text follows the rules. A pattern that does not compile matches nothing: fail
    /// closed.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let length = text.chars().count();
        (self.min_length..=self.max_length).contains(&length)
            && self.compiled.as_ref().is_some_and(|pattern| pattern.is_match(text))
    }
}

/// A text of the format `F`.
///
/// In a body, [`StrictJson`](super::strict_json::StrictJson) checks it together with the other
/// fields and reports all faults at once. In a parameter, the parser below checks it.
pub struct Text<F>(String, PhantomData<fn() -> F>);

impl<F> Clone for Text<F> {
    fn clone(&self) -> Self {
        self.0.clone().into()
    }
}

/// Omits the text, which may be personal data or a secret.
impl<F> fmt::Debug for Text<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text(…)")
    }
}

impl<F> From<String> for Text<F> {
    fn from(text: String) -> Self {
        Self(text, PhantomData)
    }
}

impl<F> From<&str> for Text<F> {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl<F> From<Text<F>> for String {
    fn from(text: Text<F>) -> Self {
        text.0
    }
}

impl<F> Deref for Text<F> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

simple_type!(Text<F>, F::rules().schema(), F: TextFormat);

impl<F: TextFormat> ParseFromJSON for Text<F> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value.unwrap_or_default() {
            Value::String(text) => Ok(text.into()),
            value => Err(ParseError::expected_type(value)),
        }
    }
}

impl<F: TextFormat> ParseFromParameter for Text<F> {
    fn parse_from_parameter(text: &str) -> ParseResult<Self> {
        if F::rules().matches(text) { Ok(text.into()) } else { Err(ParseError::custom("does not match the format")) }
    }
}

impl<F: TextFormat> ToJSON for Text<F> {
    fn to_json(&self) -> Option<Value> {
        Some(Value::String(self.0.clone()))
    }
}

impl<F: TextFormat> ToHeader for Text<F> {
    fn to_header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}
