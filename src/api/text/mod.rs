//! Texts as callers send and see them: what one looks like is said once, by its form, and read from there by the
//! document, by the check of bodies and by that of parameters (control INPUT-02).

pub(super) mod form;

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Deref};

use http::HeaderValue;
use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToHeader, ToJSON, Type},
};
use regex::Regex;
use serde_json::Value;

use super::values::simple_type;

/// What texts of a kind look like.
pub(super) trait Form: Send + Sync + 'static {
    /// Says it.
    fn shape() -> &'static Shape;
}

/// Fewest and most characters, and the pattern, which is anchored at both ends.
pub(super) struct Shape {
    shortest: usize,
    longest: usize,
    pattern: String,
    compiled: Option<Regex>,
}

impl Shape {
    /// Patterns are read by this program and by those of callers: so what is in them means the same to Rust, to
    /// Python and to ECMA 262, with the `u` flag and without.
    fn new(shortest: usize, longest: usize, pattern: String) -> Self {
        let compiled = Regex::new(&pattern).ok();
        Self { shortest, longest, pattern, compiled }
    }

    fn schema(&self) -> MetaSchema {
        MetaSchema {
            min_length: Some(self.shortest),
            max_length: Some(self.longest),
            pattern: Some(self.pattern.clone()),
            ..MetaSchema::new("string")
        }
    }

    /// A pattern that does not compile fits nothing: fail closed.
    fn fits(&self, text: &str) -> bool {
        let length = text.chars().count();
        (self.shortest..=self.longest).contains(&length)
            && self.compiled.as_ref().is_some_and(|pattern| pattern.is_match(text))
    }
}

/// A text of the form `F`. In a body it is checked by [`StrictJson`](super::strict_json::StrictJson), which tells all
/// faults at once; in a parameter here.
pub(super) struct Text<F>(String, PhantomData<fn() -> F>);

impl<F> Clone for Text<F> {
    fn clone(&self) -> Self {
        self.0.clone().into()
    }
}

/// Without the text: it may be about a person, or a secret.
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

simple_type!(Text<F>, F::shape().schema(), F: Form);

impl<F: Form> ParseFromJSON for Text<F> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value.unwrap_or_default() {
            Value::String(text) => Ok(text.into()),
            value => Err(ParseError::expected_type(value)),
        }
    }
}

impl<F: Form> ParseFromParameter for Text<F> {
    fn parse_from_parameter(text: &str) -> ParseResult<Self> {
        if F::shape().fits(text) { Ok(text.into()) } else { Err(ParseError::custom("not of the form")) }
    }
}

impl<F: Form> ToJSON for Text<F> {
    fn to_json(&self) -> Option<Value> {
        Some(Value::String(self.0.clone()))
    }
}

impl<F: Form> ToHeader for Text<F> {
    fn to_header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}
