//! Types of parameters and body fields that are not [`Text`](super::text::Text): ids, times,
//! scopes, roles.
//!
//! They accept exactly one notation each, the one that the OpenAPI document publishes (home of
//! INPUT-02 for parameters). [`schema::formats`](super::schema) checks bodies with the same
//! functions.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToJSON, Type},
};
use serde_json::Value;
use uuid::Uuid;

use crate::authz::{Matrix, Scope};

/// Maximum length of a time. RFC 3339 does not limit the digits of a fraction of a second.
pub const MAX_TIME_CHARS: usize = 40;

/// Parses a UUID in the notation of RFC 9562 section 4. Braces, `urn:uuid:` and other forms are
/// invalid.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| text.len() == 36)
}

/// Implements `Type` for a type that is a single string with the given schema.
#[doc(hidden)]
#[macro_export]
macro_rules! simple_type {
    ($name:ty, $schema:expr $(, $parameter:ident: $bound:path)?) => {
        impl $(<$parameter: $bound>)? ::poem_openapi::types::Type for $name {
            const IS_REQUIRED: bool = true;

            type RawValueType = Self;

            type RawElementValueType = Self;

            fn name() -> ::std::borrow::Cow<'static, str> {
                "string".into()
            }

            fn schema_ref() -> ::poem_openapi::registry::MetaSchemaRef {
                ::poem_openapi::registry::MetaSchemaRef::Inline(::std::boxed::Box::new($schema))
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> ::std::boxed::Box<dyn Iterator<Item = &'a Self> + 'a> {
                ::std::boxed::Box::new(::std::iter::once(self))
            }
        }
    };
}

/// Makes identifiers usable as parameters of operations. They are declared by
/// [`ids!`](crate::ids).
#[macro_export]
macro_rules! id_parameters {
    ($($name:ty),+ $(,)?) => {$(
        $crate::simple_type!($name, ::poem_openapi::registry::MetaSchema::new_with_format("string", "uuid"));

        impl ::poem_openapi::types::ParseFromParameter for $name {
            fn parse_from_parameter(text: &str) -> ::poem_openapi::types::ParseResult<Self> {
                $crate::http::values::parse_uuid(text)
                    .map(Self::from_uuid)
                    .ok_or_else(|| ::poem_openapi::types::ParseError::custom("not a UUID"))
            }
        }
    )+};
}

/// Parses a time in the notation of RFC 3339 section 5.6.
#[must_use]
pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok().filter(|_| text.len() <= MAX_TIME_CHARS);
    time.map(|time| time.to_utc())
}

/// A time parameter. The framework's own parser accepts more notations than RFC 3339.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub DateTime<Utc>);

simple_type!(Time, MetaSchema::new_with_format("string", "date-time"));

impl ParseFromParameter for Time {
    fn parse_from_parameter(text: &str) -> ParseResult<Self> {
        parse_time(text).map(Self).ok_or_else(|| ParseError::custom("not a time"))
    }
}

/// Defines named schemas whose values the service declares: [`declared_names`] lists them.
macro_rules! names {
    ($($(#[doc = $doc:literal])+ $name:ident as $schema:literal;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub(crate) struct $name(pub(crate) String);

        impl Type for $name {
            const IS_REQUIRED: bool = true;

            type RawValueType = Self;

            type RawElementValueType = Self;

            fn name() -> Cow<'static, str> {
                $schema.into()
            }

            fn schema_ref() -> MetaSchemaRef {
                MetaSchemaRef::Reference($schema.to_owned())
            }

            fn register(registry: &mut Registry) {
                registry.create_schema::<Self, _>($schema.to_owned(), |_| MetaSchema {
                    description: Some(concat!($($doc),+).trim_ascii_start()),
                    ..MetaSchema::new("string")
                });
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }

        impl ParseFromJSON for $name {
            fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
                let name = value.as_ref().and_then(Value::as_str);
                name.map(|name| Self(name.to_owned())).ok_or_else(|| ParseError::custom("not a name"))
            }
        }

        impl ToJSON for $name {
            fn to_json(&self) -> Option<Value> {
                Some(self.0.as_str().into())
            }
        }
    )+};
}

names! {
    /// Scope of this API.
    ScopeName as "Scope";
    /// Scope that an API key can have.
    KeyScope as "KeyScope";
    /// Role inside a tenant. Programs acting for themselves have the role `service`; tokens cannot
    /// name it.
    RoleName as "Role";
}

/// The values of the schemas whose values the service declares. The check of bodies and the OpenAPI
/// document take them from here.
pub(crate) fn declared_names(matrix: &Matrix) -> [(&'static str, Vec<Value>); 3] {
    let names = |scopes: &[Scope]| scopes.iter().map(|scope| scope.as_str().into()).collect();
    let roles = matrix.rights().roles.0.iter().map(|(role, _)| role.as_str().into()).collect();
    [("Scope", names(matrix.rights().scopes)), ("KeyScope", names(&matrix.key_scopes())), ("Role", roles)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AuditEventId;

    id_parameters! { AuditEventId }

    #[test]
    fn input_02_ids_and_times_have_one_notation() {
        let id = AuditEventId::generate().to_string();
        let parse = |text: &str| AuditEventId::parse_from_parameter(text).is_ok();
        assert!(parse(&id) && parse(&id.to_uppercase()));
        for other in [format!("{{{id}}}"), format!("urn:uuid:{id}"), id.replace('-', ""), format!("{id} ")] {
            assert!(!parse(&other), "{other}");
        }
        let parse = |text: &str| Time::parse_from_parameter(text).is_ok();
        assert!(parse("2026-11-24T17:00:00Z") && parse("2026-11-24t17:00:00.123456789+01:00"));
        for other in ["2026-11-24", "2026-11-24T17:00Z", "2026-11-24 17:00:00 UTC", "2026-11-24T17:00:00"] {
            assert!(!parse(other), "{other}");
        }
        assert!(!parse(&format!("2026-11-24T17:00:00.{}Z", "0".repeat(40))));
    }
}
