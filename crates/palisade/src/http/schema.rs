//! Checks a JSON body against the schema that the OpenAPI document publishes for it (INPUT-02).
//!
//! Callers read the same schema as this module, so the document and the behaviour cannot differ. A
//! schema with a keyword that this module does not check prevents startup ([`UncheckedKeyword`]).
//! [`StrictJson`](super::strict_json::StrictJson) calls [`Schemas::check`], which reports all
//! faults at once, each with its JSON pointer (RFC 6901).
//!
//! Home of INPUT-01 (unknown fields), INPUT-02 and AUTHZ-06 (closed objects).

mod formats;
mod keywords;

pub use keywords::UncheckedKeyword;

use std::collections::BTreeMap;

use poem_openapi::{
    OpenApi,
    registry::{MetaSchema, MetaSchemaRef, Registry},
};
use regex::Regex;
use serde_json::{Map, Value};

use crate::problem::{FieldError, MAX_FIELD_ERRORS};

/// The named schemas of an API, and the compiled patterns of its request bodies.
pub(crate) struct Schemas {
    named: BTreeMap<String, MetaSchema>,
    patterns: BTreeMap<String, Regex>,
}

impl Schemas {
    /// Reads the schemas of all operations of `T`. `names` are the values of enumerations that the
    /// service declares, by the name of the schema.
    ///
    /// # Errors
    /// The first keyword, in the schemas of request bodies, that [`check`](Self::check) would
    /// ignore.
    pub(crate) fn new<T: OpenApi>(names: &[(&str, Vec<Value>)]) -> Result<Self, UncheckedKeyword> {
        let mut registry = Registry::new();
        T::register(&mut registry);
        for (name, values) in names {
            if let Some(schema) = registry.schemas.get_mut(*name) {
                schema.enum_items.clone_from(values);
            }
        }
        let patterns = keywords::read_bodies(&T::meta(), &registry.schemas)?;
        Ok(Self { named: registry.schemas, patterns })
    }

    /// Returns the faults of `value`, at most 20. Empty: it matches the schema.
    pub(crate) fn check(&self, schema: &MetaSchemaRef, value: &Value) -> Vec<FieldError> {
        let mut faults = Vec::new();
        self.check_ref(schema, value, "", &mut faults);
        faults.truncate(MAX_FIELD_ERRORS);
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
        if faults.len() >= MAX_FIELD_ERRORS {
            return;
        }
        for part in &schema.all_of {
            self.check_ref(part, value, at, faults);
        }
        if !schema.enum_items.is_empty() && !schema.enum_items.contains(value) {
            return fault(faults, at, "not_allowed");
        }
        match (schema.ty, value) {
            (_, Value::Null) if schema.nullable => {}
            ("object", Value::Object(members)) => self.check_object(schema, members, at, faults),
            ("array", Value::Array(items)) => self.check_array(schema, items, at, faults),
            ("string", Value::String(text)) => self.check_string(schema, text, at, faults),
            ("integer", Value::Number(number)) => match number.as_i64() {
                Some(number) => check_integer(schema, number, at, faults),
                None => fault(faults, at, "wrong_type"),
            },
            // A schema without a type is a reference with annotations: `all_of` is checked above.
            ("boolean", Value::Bool(_)) | ("", _) => {}
            _ => fault(faults, at, "wrong_type"),
        }
    }

    /// Objects are closed: a member that the schema does not name is a fault. A caller cannot set a
    /// property that it must not even see (AUTHZ-06).
    fn check_object(&self, schema: &MetaSchema, members: &Map<String, Value>, at: &str, faults: &mut Vec<FieldError>) {
        for (name, property) in &schema.properties {
            match members.get(*name) {
                None if schema.required.contains(name) => fault(faults, &format!("{at}/{name}"), "required"),
                None => {}
                Some(value) => self.check_ref(property, value, &format!("{at}/{name}"), faults),
            }
        }
        let is_unknown = |name: &String| !schema.properties.iter().any(|(property, _)| property == name);
        if members.keys().any(is_unknown) {
            // The name is text of the caller and is not echoed.
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
            && let Some(duplicate) = items
                .iter()
                .enumerate()
                .position(|(index, item)| items.iter().take(index).any(|earlier| earlier == item))
        {
            fault(faults, &format!("{at}/{duplicate}"), "duplicate");
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
        } else if let Some(format) = schema.format
            && !formats::of_strings(format).is_some_and(|matches| matches(text))
        {
            fault(faults, at, "format");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "bounds in schemas are far below 2^53")]
fn check_integer(schema: &MetaSchema, number: i64, at: &str, faults: &mut Vec<FieldError>) {
    let range = schema.format.and_then(formats::of_integers);
    let value = number as f64;
    if schema.minimum.is_some_and(|min| value < min) || range.is_some_and(|(min, _)| number < min) {
        fault(faults, at, "too_small");
    } else if schema.maximum.is_some_and(|max| value > max) || range.is_some_and(|(_, max)| number > max) {
        fault(faults, at, "too_large");
    }
}

fn fault(faults: &mut Vec<FieldError>, at: &str, code: &'static str) {
    faults.push(FieldError { pointer: at.to_owned(), code });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn codes(schema: MetaSchema, value: &Value) -> Vec<&'static str> {
        let schemas = Schemas { named: BTreeMap::new(), patterns: BTreeMap::new() };
        let faults = schemas.check(&MetaSchemaRef::Inline(Box::new(schema)), value);
        faults.into_iter().map(|fault| fault.code).collect()
    }

    #[test]
    fn input_02_formats_are_checked() {
        let format = |ty, format| MetaSchema::new_with_format(ty, format);
        assert!(codes(format("string", "date-time"), &json!("2026-11-24T17:00:00Z")).is_empty());
        assert_eq!(codes(format("string", "date-time"), &json!("2026-11-24 17:00:00 UTC")), ["format"]);
        assert_eq!(codes(format("string", "uuid"), &json!("{0190a001-0000-7000-8000-000000000001}")), ["format"]);
        assert!(codes(format("integer", "int32"), &json!(i32::MAX)).is_empty());
        assert_eq!(codes(format("integer", "int32"), &json!(2_147_483_648_i64)), ["too_large"]);
        assert_eq!(codes(format("integer", "int32"), &json!(-2_147_483_649_i64)), ["too_small"]);
    }

    #[test]
    fn input_02_null_is_allowed_where_the_schema_is_nullable() {
        let nullable = MetaSchema { nullable: true, max_length: Some(1), ..MetaSchema::new("string") };
        assert!(codes(nullable.clone(), &Value::Null).is_empty());
        assert_eq!(codes(nullable, &json!("ab")), ["too_long"]);
        assert_eq!(codes(MetaSchema::new("string"), &Value::Null), ["wrong_type"]);
    }
}
