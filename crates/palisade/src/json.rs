//! Strict JSON parser for request bodies and tokens (INPUT-05, INPUT-06, AUTHN-08).
//!
//! RFC 8259 section 4 leaves duplicate names to the parser, so two parsers could read one body
//! differently. This one rejects them, and bounds depth and breadth against resource exhaustion.
//! [`crate::http`] calls [`parse`] for bodies, [`crate::authn`] [`parse_within`] for tokens.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 16;

/// Most members of an object, and most items of an array.
const MAX_BREADTH: usize = 256;

/// Why a text is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is no JSON, an object has duplicate names, or the depth exceeds 16.
    Malformed,
    /// An object or an array is broader than allowed.
    TooBroad,
}

/// Parses bytes that contain exactly one JSON value in UTF-8.
///
/// `None` if an object has duplicate names, the depth exceeds 16, or the breadth exceeds 256.
pub(crate) fn parse(bytes: &[u8]) -> Option<Value> {
    parse_within(bytes, MAX_BREADTH).ok()
}

/// The same with this breadth.
pub(crate) fn parse_within(bytes: &[u8], max_breadth: usize) -> Result<Value, Fault> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let is_too_broad = Cell::new(false);
    let visitor = StrictVisitor { depth: MAX_DEPTH, max_breadth, is_too_broad: &is_too_broad };
    let value = visitor.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|_| if is_too_broad.get() { Fault::TooBroad } else { Fault::Malformed })
}

/// Builds a [`Value`], but rejects duplicate names, of which `serde_json` would keep the last.
#[derive(Clone, Copy)]
struct StrictVisitor<'c> {
    /// Levels of nesting that are still allowed.
    depth: usize,
    max_breadth: usize,
    is_too_broad: &'c Cell<bool>,
}

impl StrictVisitor<'_> {
    fn descend<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nesting too deep"))?;
        Ok(Self { depth, ..self })
    }

    fn check_breadth<E: serde::de::Error>(self, length: usize) -> Result<(), E> {
        if length < self.max_breadth {
            return Ok(());
        }
        self.is_too_broad.set(true);
        Err(E::custom("too many members or items"))
    }
}

impl<'de> DeserializeSeed<'de> for StrictVisitor<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! visit_scalars {
    ($($visit:ident: $scalar:ty),+) => {
        $(fn $visit<E>(self, value: $scalar) -> Result<Value, E> {
            Ok(value.into())
        })+
    };
}

impl<'de> Visitor<'de> for StrictVisitor<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    visit_scalars! { visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.descend()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            self.check_breadth::<A::Error>(items.len())?;
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.descend()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            self.check_breadth::<A::Error>(members.len())?;
            let value = map.next_value_seed(inner)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate name"));
            }
        }
        Ok(Value::Object(members))
    }
}
