//! Strict JSON parser for request bodies and tokens (INPUT-05, INPUT-06, AUTHN-08).
//!
//! RFC 8259 section 4 leaves duplicate names to the parser, so two parsers could read one body
//! differently. This one rejects them, and bounds depth and breadth against resource exhaustion.
//! [`crate::http`] and [`crate::authn`] call [`parse`].

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 16;

/// Most members of an object, and most items of an array.
const MAX_BREADTH: usize = 256;

/// Parses bytes that contain exactly one JSON value in UTF-8.
///
/// `None` if an object has duplicate names, the depth exceeds 16, or the breadth exceeds 256.
pub(crate) fn parse(bytes: &[u8]) -> Option<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = StrictVisitor { depth: MAX_DEPTH }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

/// Builds a [`Value`], but rejects duplicate names, of which `serde_json` would keep the last.
#[derive(Clone, Copy)]
struct StrictVisitor {
    /// Levels of nesting that are still allowed.
    depth: usize,
}

impl StrictVisitor {
    fn descend<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nesting too deep"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for StrictVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
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
        let inner = self.descend()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            if items.len() == MAX_BREADTH {
                return Err(A::Error::custom("too many members or items"));
            }
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.descend()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.len() == MAX_BREADTH {
                return Err(A::Error::custom("too many members or items"));
            }
            let value = map.next_value_seed(inner)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate name"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_01_duplicate_names_are_rejected_at_any_depth() {
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
    fn input_05_breadth_is_bounded() {
        let object = |members: usize| {
            format!("{{{}}}", (0..members).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(","))
        };
        let array = |items: usize| format!("[{}]", vec!["0"; items].join(","));
        assert!(parse(object(256).as_bytes()).is_some());
        assert!(parse(object(257).as_bytes()).is_none());
        assert!(parse(array(256).as_bytes()).is_some());
        assert!(parse(array(257).as_bytes()).is_none());
    }

    #[test]
    fn input_06_invalid_utf_8_and_trailing_bytes_are_rejected() {
        assert!(parse(b"\"\xff\"").is_none());
        assert!(parse(b"{} {}").is_none());
        assert!(parse(b"").is_none());
    }
}
