//! Finds schema keywords that the check of request bodies would ignore (INPUT-02).
//!
//! The published document promises that a body is checked against its schema. A keyword that
//! [`Schemas::check`](super::Schemas::check) does not implement would break that promise without a
//! sign. So [`read_bodies`] walks the schemas of all request bodies, nested ones included, when the
//! routes are built, and an [`UncheckedKeyword`] prevents startup.

use std::collections::{BTreeMap, BTreeSet};

use poem_openapi::registry::{MetaApi, MetaSchema, MetaSchemaRef};
use regex::Regex;
use thiserror::Error;

use super::formats;

/// A schema of a request body uses a keyword that the check of bodies does not support.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the schema {schema} has {keyword}: the check of request bodies does not support that.\n\
     Use a type without it, or implement it in src/http/schema.rs (control INPUT-02)."
)]
pub struct UncheckedKeyword {
    /// The named schema, then the path to the property: `NewOrder.lines[].sku`.
    schema: String,
    keyword: String,
}

/// Walks the schemas of all request bodies. Returns their patterns, compiled.
pub(super) fn read_bodies(
    apis: &[MetaApi],
    named: &BTreeMap<String, MetaSchema>,
) -> Result<BTreeMap<String, Regex>, UncheckedKeyword> {
    let mut walk = Walk { named, visited: BTreeSet::new(), patterns: BTreeMap::new() };
    for operation in apis.iter().flat_map(|api| &api.paths).flat_map(|path| &path.operations) {
        for content in operation.request.iter().flat_map(|request| &request.content) {
            walk.read(&content.schema, &format!("of {}", operation.operation_id.unwrap_or("a request")))?;
        }
    }
    Ok(walk.patterns)
}

struct Walk<'a> {
    named: &'a BTreeMap<String, MetaSchema>,
    /// Named schemas that were read already; schemas can be recursive.
    visited: BTreeSet<&'a str>,
    patterns: BTreeMap<String, Regex>,
}

impl<'a> Walk<'a> {
    fn read(&mut self, schema: &'a MetaSchemaRef, at: &str) -> Result<(), UncheckedKeyword> {
        match schema {
            MetaSchemaRef::Inline(schema) => self.read_schema(schema, at),
            MetaSchemaRef::Reference(name) if !self.visited.insert(name) => Ok(()),
            MetaSchemaRef::Reference(name) => match self.named.get(name) {
                Some(schema) => self.read_schema(schema, name),
                None => unchecked(at, format!("a reference to the unknown schema {name}")),
            },
        }
    }

    fn read_schema(&mut self, schema: &'a MetaSchema, at: &str) -> Result<(), UncheckedKeyword> {
        if let Some(keyword) = unchecked_keyword(schema) {
            return unchecked(at, format!("`{keyword}`"));
        }
        if let Some(format) = schema.format {
            let is_checked = match schema.ty {
                "string" => formats::of_strings(format).is_some(),
                _ => formats::of_integers(format).is_some(),
            };
            if !is_checked {
                return unchecked(at, format!("`format: {format}`"));
            }
        }
        if let Some(pattern) = &schema.pattern
            && !self.patterns.contains_key(pattern)
        {
            let Ok(regex) = Regex::new(pattern) else { return unchecked(at, "a `pattern` that does not compile") };
            self.patterns.insert(pattern.clone(), regex);
        }
        match (schema.ty, schema.all_of.as_slice()) {
            ("object" | "array" | "string" | "integer" | "boolean", []) => {}
            // A property whose type is a named schema: poem-openapi merges annotations like this.
            ("", [reference @ MetaSchemaRef::Reference(_), MetaSchemaRef::Inline(annotations)])
                if annotations.ty.is_empty() && unchecked_keyword(annotations).is_none() =>
            {
                self.read(reference, at)?;
            }
            ("", []) => return unchecked(at, "no `type`"),
            (_, []) => return unchecked(at, format!("`type: {}`", schema.ty)),
            _ => return unchecked(at, "`allOf`"),
        }
        for (name, property) in &schema.properties {
            self.read(property, &format!("{at}.{name}"))?;
        }
        schema.items.iter().try_for_each(|items| self.read(items, &format!("{at}[]")))
    }
}

fn unchecked<T>(schema: &str, keyword: impl Into<String>) -> Result<T, UncheckedKeyword> {
    Err(UncheckedKeyword { schema: schema.to_owned(), keyword: keyword.into() })
}

/// The first keyword of `schema` that is not checked for its type.
///
/// The pattern names every field of [`MetaSchema`]: a keyword that a later version of poem-openapi
/// adds does not compile until it has a place here.
fn unchecked_keyword(schema: &MetaSchema) -> Option<&'static str> {
    /// For keywords that no type supports.
    const NONE: &[&str] = &[];
    /// For keywords that all types support.
    const TYPED: &[&str] = &["object", "array", "string", "integer", "boolean"];
    let MetaSchema {
        ty,
        format,
        required,
        properties,
        items,
        additional_properties,
        enum_items,
        nullable,
        any_of,
        one_of,
        all_of,
        discriminator,
        read_only,
        multiple_of,
        maximum,
        exclusive_maximum,
        minimum,
        exclusive_minimum,
        max_length,
        min_length,
        pattern,
        max_items,
        min_items,
        unique_items,
        max_properties,
        min_properties,
        // Annotations restrict nothing (JSON Schema 2020-12, validation section 9).
        rust_typename: _,
        title: _,
        description: _,
        external_docs: _,
        default: _,
        deprecated: _,
        write_only: _,
        example: _,
    } = schema;
    // Keyword, whether the schema has it, and the types for which it is checked.
    let keywords: [(_, bool, &[&str]); 25] = [
        ("oneOf", !one_of.is_empty(), NONE),
        ("anyOf", !any_of.is_empty(), NONE),
        ("discriminator", discriminator.is_some(), NONE),
        ("additionalProperties", additional_properties.is_some(), NONE),
        ("minProperties", min_properties.is_some(), NONE),
        ("maxProperties", max_properties.is_some(), NONE),
        ("multipleOf", multiple_of.is_some(), NONE),
        ("exclusiveMinimum", exclusive_minimum.is_some(), NONE),
        ("exclusiveMaximum", exclusive_maximum.is_some(), NONE),
        ("readOnly", *read_only, NONE),
        ("allOf", !all_of.is_empty(), &[""]),
        ("nullable", *nullable, TYPED),
        ("enum", !enum_items.is_empty(), TYPED),
        ("format", format.is_some(), &["string", "integer"]),
        ("minimum", minimum.is_some(), &["integer"]),
        ("maximum", maximum.is_some(), &["integer"]),
        ("minLength", min_length.is_some(), &["string"]),
        ("maxLength", max_length.is_some(), &["string"]),
        ("pattern", pattern.is_some(), &["string"]),
        ("items", items.is_some(), &["array"]),
        ("minItems", min_items.is_some(), &["array"]),
        ("maxItems", max_items.is_some(), &["array"]),
        ("uniqueItems", unique_items.is_some(), &["array"]),
        ("properties", !properties.is_empty(), &["object"]),
        ("required", !required.is_empty(), &["object"]),
    ];
    keywords.into_iter().find(|(_, is_used, types)| *is_used && !types.contains(ty)).map(|(keyword, ..)| keyword)
}

#[cfg(test)]
mod tests {
    use poem_openapi::{Object, OpenApi, Union};

    use super::*;
    use crate::http::{schema::Schemas, strict_json::StrictJson};

    /// The error of a body `Body` with one property, `field`, of this schema.
    fn error_of(field: MetaSchema) -> Option<String> {
        let properties = vec![("field", MetaSchemaRef::Inline(Box::new(field)))];
        let body = MetaSchema { properties, ..MetaSchema::new("object") };
        let named = BTreeMap::from([("Body".to_owned(), body), ("Named".to_owned(), MetaSchema::new("string"))]);
        let mut walk = Walk { named: &named, visited: BTreeSet::new(), patterns: BTreeMap::new() };
        walk.read(&reference("Body"), "").err().map(|error| error.to_string())
    }

    fn reference(name: &str) -> MetaSchemaRef {
        MetaSchemaRef::Reference(name.to_owned())
    }

    fn of_type(ty: &'static str) -> MetaSchema {
        MetaSchema::new(ty)
    }

    macro_rules! unsupported {
        ($($test:ident: $schema:expr, $keyword:literal;)+) => {$(
            #[test]
            fn $test() {
                let error = error_of($schema).unwrap();
                assert!(error.starts_with(concat!("the schema Body.field has ", $keyword, ":")), "{error}");
            }
        )+};
    }

    unsupported! {
        input_02_one_of_prevents_startup:
            MetaSchema { one_of: vec![reference("Named")], ..of_type("object") }, "`oneOf`";
        input_02_any_of_prevents_startup:
            MetaSchema { any_of: vec![reference("Named")], ..of_type("object") }, "`anyOf`";
        input_02_all_of_several_prevents_startup:
            MetaSchema { all_of: vec![reference("Named"), reference("Named")], ..MetaSchema::ANY }, "`allOf`";
        input_02_additional_properties_prevent_startup:
            MetaSchema { additional_properties: Some(Box::new(reference("Named"))), ..of_type("object") },
            "`additionalProperties`";
        input_02_min_properties_prevents_startup:
            MetaSchema { min_properties: Some(1), ..of_type("object") }, "`minProperties`";
        input_02_max_properties_prevents_startup:
            MetaSchema { max_properties: Some(1), ..of_type("object") }, "`maxProperties`";
        input_02_multiple_of_prevents_startup:
            MetaSchema { multiple_of: Some(5.0), ..of_type("integer") }, "`multipleOf`";
        input_02_exclusive_minimum_prevents_startup:
            MetaSchema { minimum: Some(0.0), exclusive_minimum: Some(true), ..of_type("integer") },
            "`exclusiveMinimum`";
        input_02_exclusive_maximum_prevents_startup:
            MetaSchema { maximum: Some(9.0), exclusive_maximum: Some(true), ..of_type("integer") },
            "`exclusiveMaximum`";
        input_02_read_only_prevents_startup: MetaSchema { read_only: true, ..of_type("string") }, "`readOnly`";
        input_02_keyword_of_another_type_prevents_startup:
            MetaSchema { min_length: Some(1), ..of_type("integer") }, "`minLength`";
        input_02_nullable_reference_prevents_startup:
            MetaSchema { nullable: true, all_of: vec![reference("Named")], ..MetaSchema::ANY }, "`nullable`";
        input_02_unknown_string_format_prevents_startup:
            MetaSchema::new_with_format("string", "email"), "`format: email`";
        input_02_unknown_integer_format_prevents_startup:
            MetaSchema::new_with_format("integer", "uint64"), "`format: uint64`";
        input_02_unknown_type_prevents_startup: of_type("number"), "`type: number`";
        input_02_missing_type_prevents_startup: MetaSchema::ANY, "no `type`";
        input_02_invalid_pattern_prevents_startup:
            MetaSchema { pattern: Some("(".to_owned()), ..of_type("string") }, "a `pattern` that does not compile";
    }

    #[test]
    fn input_02_items_and_referenced_schemas_are_read() {
        let numbers = || MetaSchemaRef::Inline(Box::new(of_type("number")));
        let error = error_of(MetaSchema { items: Some(Box::new(numbers())), ..of_type("array") }).unwrap();
        assert!(error.starts_with("the schema Body.field[] has `type: number`:"), "{error}");
        let error = error_of(MetaSchema { items: Some(Box::new(reference("Lost"))), ..of_type("array") }).unwrap();
        assert!(error.starts_with("the schema Body.field[] has a reference to the unknown schema Lost:"), "{error}");
    }

    #[test]
    fn input_02_checked_keywords_do_not_prevent_startup() {
        let annotations = || MetaSchema { description: Some("A name."), ..MetaSchema::ANY };
        let described = reference("Named").merge(annotations());
        let MetaSchemaRef::Inline(described) = described else { panic!("{described:?}") };
        let nullable = MetaSchema { nullable: true, pattern: Some("^a$".to_owned()), ..of_type("string") };
        let bounded = MetaSchema { minimum: Some(1.0), ..MetaSchema::new_with_format("integer", "int32") };
        for schema in [*described, nullable, bounded, MetaSchema::new_with_format("string", "date-time")] {
            assert_eq!(error_of(schema), None);
        }
    }

    #[derive(Object)]
    struct Shop {
        name: String,
    }

    #[derive(Object)]
    struct Person {
        age: i32,
    }

    #[derive(Union)]
    enum Buyer {
        Shop(Shop),
        Person(Person),
    }

    #[derive(Object)]
    struct Purchase {
        buyer: Buyer,
    }

    struct Api;

    #[OpenApi]
    impl Api {
        #[oai(path = "/purchases", method = "post")]
        async fn buy(&self, _body: StrictJson<Purchase>) {}
    }

    #[test]
    fn input_02_nested_union_in_a_body_prevents_startup() {
        let error = Schemas::new::<Api>(&[]).err().unwrap().to_string();
        assert!(error.starts_with("the schema Buyer has `anyOf`:"), "{error}");
    }
}
