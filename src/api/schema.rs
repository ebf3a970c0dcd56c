//! Checks a JSON body against the schema that the document publishes for it (control INPUT-02).
//!
//! The same schema is what callers read and what their input is held to, so the two cannot
//! differ. All faults are reported at once, each with its JSON pointer (RFC 6901).

use std::collections::BTreeMap;

use poem_openapi::{
    OpenApi,
    registry::{MetaSchema, MetaSchemaRef, Registry},
};
use regex::Regex;
use serde_json::{Map, Value};

use super::values;
use crate::problem::{FieldError, MAX_FAULTS};

/// The named schemas of an API, with their patterns compiled.
pub(super) struct Schemas {
    named: BTreeMap<String, MetaSchema>,
    patterns: BTreeMap<String, Regex>,
}

impl Schemas {
    pub(super) fn of<T: OpenApi>() -> Self {
        let mut registry = Registry::new();
        T::register(&mut registry);
        let mut patterns = BTreeMap::new();
        for schema in registry.schemas.values() {
            collect_patterns(schema, &mut patterns);
        }
        Self { named: registry.schemas, patterns }
    }

    /// Everything that is wrong with `value`, at most 20 faults.
    pub(super) fn check(&self, schema: &MetaSchemaRef, value: &Value) -> Vec<FieldError> {
        let mut faults = Vec::new();
        self.check_ref(schema, value, "", &mut faults);
        faults.truncate(MAX_FAULTS);
        faults
    }

    fn check_ref(&self, schema: &MetaSchemaRef, value: &Value, at: &str, faults: &mut Vec<FieldError>) {
        match schema {
            MetaSchemaRef::Inline(schema) => self.check_schema(schema, value, at, faults),
            MetaSchemaRef::Reference(name) => match self.named.get(name) {
                Some(schema) => self.check_schema(schema, value, at, faults),
                None => fault(faults, at, "invalid"),
            },
        }
    }

    fn check_schema(&self, schema: &MetaSchema, value: &Value, at: &str, faults: &mut Vec<FieldError>) {
        if faults.len() >= MAX_FAULTS {
            return;
        }
        for part in &schema.all_of {
            self.check_ref(part, value, at, faults);
        }
        if !schema.enum_items.is_empty() && !schema.enum_items.contains(value) {
            return fault(faults, at, "not_allowed");
        }
        match (schema.ty, value) {
            ("object", Value::Object(members)) => self.check_object(schema, members, at, faults),
            ("array", Value::Array(items)) => self.check_array(schema, items, at, faults),
            ("string", Value::String(text)) => self.check_string(schema, text, at, faults),
            ("integer", Value::Number(number)) => match number.as_i64() {
                Some(number) => check_integer(schema, number, at, faults),
                None => fault(faults, at, "wrong_type"),
            },
            // A schema without a type allows all types: it groups others, or only describes.
            ("boolean", Value::Bool(_)) | ("", _) => {}
            _ => fault(faults, at, "wrong_type"),
        }
    }

    /// Objects are closed: a member the schema does not name is a fault, so that nobody
    /// can set what they should not even see (control AUTHZ-06).
    fn check_object(&self, schema: &MetaSchema, members: &Map<String, Value>, at: &str, faults: &mut Vec<FieldError>) {
        for (name, property) in &schema.properties {
            match members.get(*name) {
                None if schema.required.contains(name) => fault(faults, &format!("{at}/{name}"), "required"),
                None => {}
                Some(Value::Null) if is_nullable(property) => {}
                Some(value) => self.check_ref(property, value, &format!("{at}/{name}"), faults),
            }
        }
        let unknown = |name: &String| !schema.properties.iter().any(|(known, _)| known == name);
        if members.keys().any(unknown) {
            // The name is the caller's text and is not repeated.
            fault(faults, at, "unknown_field");
        }
    }

    fn check_array(&self, schema: &MetaSchema, items: &[Value], at: &str, faults: &mut Vec<FieldError>) {
        if schema.max_items.is_some_and(|max| items.len() > max) {
            return fault(faults, at, "too_many");
        }
        if schema.min_items.is_some_and(|min| items.len() < min) {
            return fault(faults, at, "too_few");
        }
        if let Some(item_schema) = &schema.items {
            for (index, item) in items.iter().enumerate() {
                self.check_ref(item_schema, item, &format!("{at}/{index}"), faults);
            }
        }
        if schema.unique_items == Some(true)
            && let Some(second) = items
                .iter()
                .enumerate()
                .position(|(place, item)| items.iter().take(place).any(|earlier| earlier == item))
        {
            fault(faults, &format!("{at}/{second}"), "duplicate");
        }
    }

    fn check_string(&self, schema: &MetaSchema, text: &str, at: &str, faults: &mut Vec<FieldError>) {
        let length = text.chars().count();
        if schema.max_length.is_some_and(|max| length > max) {
            fault(faults, at, "too_long");
        } else if schema.min_length.is_some_and(|min| length < min) {
            fault(faults, at, "too_short");
        } else if let Some(pattern) = &schema.pattern
            && !self.patterns.get(pattern).is_some_and(|regex| regex.is_match(text))
        {
            fault(faults, at, "format");
        } else if schema.format == Some("uuid") && values::uuid(text).is_none() {
            fault(faults, at, "format");
        }
    }
}

/// Null is a value like any other, and only allowed where the schema says so.
fn is_nullable(schema: &MetaSchemaRef) -> bool {
    matches!(schema, MetaSchemaRef::Inline(schema) if schema.nullable)
}

#[expect(clippy::cast_precision_loss, reason = "bounds in schemas are far below 2^53")]
fn check_integer(schema: &MetaSchema, number: i64, at: &str, faults: &mut Vec<FieldError>) {
    let number = number as f64;
    if schema.minimum.is_some_and(|min| number < min) {
        fault(faults, at, "too_small");
    } else if schema.maximum.is_some_and(|max| number > max) {
        fault(faults, at, "too_large");
    }
}

fn fault(faults: &mut Vec<FieldError>, at: &str, code: &'static str) {
    faults.push(FieldError { pointer: at.to_owned(), code });
}

/// A pattern that does not compile is left out, and then nothing matches it: fail closed.
fn collect_patterns(schema: &MetaSchema, patterns: &mut BTreeMap<String, Regex>) {
    if let Some(pattern) = &schema.pattern
        && let Ok(regex) = Regex::new(pattern)
    {
        patterns.insert(pattern.clone(), regex);
    }
    let properties = schema.properties.iter().map(|(_, property)| property);
    for part in properties.chain(schema.items.as_deref()).chain(&schema.all_of) {
        if let MetaSchemaRef::Inline(inline) = part {
            collect_patterns(inline, patterns);
        }
    }
}
