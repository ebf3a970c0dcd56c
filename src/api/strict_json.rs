//! The only way a body comes in (controls INPUT-01, INPUT-03, INPUT-05).

use std::{fmt, sync::Arc};

use poem::{FromRequest, Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    payload::{Json, Payload},
    registry::{MetaRequest, MetaSchemaRef, Registry},
    types::{ParseFromJSON, Type},
};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::schema::Schemas;
use crate::{
    problem::{Kind, Problem},
    telemetry::event,
};

/// Deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 16;

/// A JSON body: UTF-8, no duplicate keys, nothing after the value, no deeper than 16, and
/// exactly what the published schema of `T` allows.
pub(super) struct StrictJson<T> {
    /// What it says.
    pub(super) value: T,
    /// The same in one fixed form: without white space, members in the order of their names. Two bodies that
    /// say the same are equal in it.
    pub(super) canonical: Vec<u8>,
}

impl<T: Type> Payload for StrictJson<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn check_content_type(content_type: &str) -> bool {
        let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
        parts.next().is_some_and(|essence| essence == Self::CONTENT_TYPE)
            && parts.all(|parameter| matches!(parameter.as_str(), "charset=utf-8" | "charset=\"utf-8\""))
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<'a, T: ParseFromJSON> ApiExtractor<'a> for StrictJson<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <Self as Payload>::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Json::<T>::request_meta()
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        if !request.content_type().is_some_and(Self::check_content_type) {
            return Err(Problem::new(Kind::UnsupportedMediaType).into());
        }
        let bytes = <Vec<u8> as FromRequest>::from_request(request, body).await?;
        let mut value = parse(&bytes).ok_or_else(|| refuse(Problem::new(Kind::Malformed)))?;
        value.sort_all_objects();
        let schemas = request.data::<Arc<Schemas>>().ok_or_else(|| Problem::new(Kind::Internal))?;
        let faults = schemas.check(&T::schema_ref(), &value);
        if !faults.is_empty() {
            return Err(refuse(Problem::new(Kind::InvalidInput).errors(faults)).into());
        }
        // After the check above this fails only if the type wants more than its own schema says.
        let canonical = serde_json::to_vec(&value).map_err(|_| Problem::new(Kind::Internal))?;
        match T::parse_from_json(Some(value)) {
            Ok(value) => Ok(Self { value, canonical }),
            Err(_) => Err(refuse(Problem::new(Kind::InvalidInput).at("", "invalid")).into()),
        }
    }
}

fn refuse(problem: Problem) -> Problem {
    event::input_validation_fail(problem.code(), 1);
    problem
}

/// `None` if the bytes are not one JSON value in strict form.
fn parse(bytes: &[u8]) -> Option<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: MAX_DEPTH }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

/// Builds a [`Value`] as `serde_json` does, but with an error where that keeps the last of two equal keys.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("too deep"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(inner)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_01_duplicate_keys_are_refused_at_any_depth() {
        assert!(parse(br#"{"a":{"b":1}}"#).is_some());
        assert!(parse(br#"{"a":1,"a":1}"#).is_none());
        assert!(parse(br#"{"a":[{"b":1,"b":2}]}"#).is_none());
    }

    #[test]
    fn input_05_nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(16).as_bytes()).is_some());
        assert!(parse(nested(17).as_bytes()).is_none());
        assert!(parse(nested(1_000_000).as_bytes()).is_none());
    }

    #[test]
    fn input_06_bytes_that_are_not_utf_8_and_trailing_bytes_are_refused() {
        assert!(parse(b"\"\xff\"").is_none());
        assert!(parse(b"{} {}").is_none());
        assert!(parse(b"").is_none());
    }
}
