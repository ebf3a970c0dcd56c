//! JSON, read strictly (RFC 8259 section 4 leaves duplicate names to the reader; two readers could differ).
//! Bodies and tokens come in through here.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 16;

/// Most members of an object, and most items of an array.
const MAX_BREADTH: usize = 256;

/// `None` if the bytes are not one JSON value in UTF-8 with distinct names, no deeper than 16 and no broader than 256, and
/// nothing after it.
pub(crate) fn parse(bytes: &[u8]) -> Option<Value> {
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
            if items.len() == MAX_BREADTH {
                return Err(A::Error::custom("too broad"));
            }
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.len() == MAX_BREADTH {
                return Err(A::Error::custom("too broad"));
            }
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
    fn input_06_bytes_that_are_not_utf_8_and_trailing_bytes_are_refused() {
        assert!(parse(b"\"\xff\"").is_none());
        assert!(parse(b"{} {}").is_none());
        assert!(parse(b"").is_none());
    }
}
