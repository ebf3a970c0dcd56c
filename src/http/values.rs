//! Types of parameters and body fields that are not [`Text`](super::text::Text): ids, times,
//! scopes.
//!
//! They accept exactly one notation each, the one that the OpenAPI document publishes (home of
//! INPUT-02 for parameters). [`schema::formats`](super::schema) checks bodies with the same
//! functions.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToJSON, Type},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    authz::matrix::Scope,
    domain::{ApiKeyId, CustomerId, InvoiceId, OrderId, PaymentId},
};

/// Maximum length of a time. RFC 3339 does not limit the digits of a fraction of a second.
pub(crate) const MAX_TIME_CHARS: usize = 40;

/// Parses a UUID in the notation of RFC 9562 section 4. Braces, `urn:uuid:` and other forms are
/// invalid.
pub(crate) fn parse_uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| text.len() == 36)
}

/// Implements [`Type`] for a type that is a single string with the given schema.
macro_rules! simple_type {
    ($name:ty, $schema:expr $(, $parameter:ident: $bound:path)?) => {
        impl $(<$parameter: $bound>)? Type for $name {
            const IS_REQUIRED: bool = true;

            type RawValueType = Self;

            type RawElementValueType = Self;

            fn name() -> Cow<'static, str> {
                "string".into()
            }

            fn schema_ref() -> MetaSchemaRef {
                MetaSchemaRef::Inline(Box::new($schema))
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }
    };
}

pub(crate) use simple_type;

macro_rules! ids {
    ($($name:ident),+) => {$(
        simple_type!($name, MetaSchema::new_with_format("string", "uuid"));

        impl ParseFromParameter for $name {
            fn parse_from_parameter(text: &str) -> ParseResult<Self> {
                parse_uuid(text).map(Self::from_uuid).ok_or_else(|| ParseError::custom("not a UUID"))
            }
        }
    )+};
}

ids! { ApiKeyId, CustomerId, InvoiceId, OrderId, PaymentId }

/// Parses a time in the notation of RFC 3339 section 5.6.
pub(crate) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok().filter(|_| text.len() <= MAX_TIME_CHARS);
    time.map(|time| time.to_utc())
}

/// A time parameter. The framework's own parser accepts more notations than RFC 3339.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(pub(crate) DateTime<Utc>);

simple_type!(Time, MetaSchema::new_with_format("string", "date-time"));

impl ParseFromParameter for Time {
    fn parse_from_parameter(text: &str) -> ParseResult<Self> {
        parse_time(text).map(Self).ok_or_else(|| ParseError::custom("not a time"))
    }
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident, $includes:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) struct $name(Scope);

        impl $name {
            /// Returns `None` if the type does not include this scope.
            pub(crate) fn from_scope(scope: Scope) -> Option<Self> {
                let includes: fn(Scope) -> bool = $includes;
                includes(scope).then_some(Self(scope))
            }

            fn all() -> impl Iterator<Item = Self> {
                Scope::ALL.into_iter().filter_map(Self::from_scope)
            }
        }

        impl From<$name> for Scope {
            fn from(scope: $name) -> Self {
                scope.0
            }
        }

        simple_type!($name, MetaSchema {
            enum_items: Self::all().map(|scope| scope.0.as_str().into()).collect(),
            ..MetaSchema::new("string")
        });

        impl ParseFromJSON for $name {
            fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
                let scope = value.as_ref().and_then(Value::as_str).and_then(|name| name.parse().ok());
                scope.and_then(Self::from_scope).ok_or_else(|| ParseError::custom("not a scope"))
            }
        }

        impl ToJSON for $name {
            fn to_json(&self) -> Option<Value> {
                Some(self.0.as_str().into())
            }
        }
    )+};
}

scopes! {
    /// Any scope of this API.
    AnyScope, |_| true;
    /// A scope that an API key can have.
    KeyScope, Scope::is_for_keys;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_02_ids_and_times_have_one_notation() {
        let id = OrderId::generate().to_string();
        let parse = |text: &str| OrderId::parse_from_parameter(text).is_ok();
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
