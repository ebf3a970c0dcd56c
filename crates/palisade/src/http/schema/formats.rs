//! The values of the keyword `format` that request bodies may use, each with its check.
//!
//! With any other format, [`keywords`](super::keywords) prevents startup. Patterns of texts are not
//! formats in this sense: [`text::formats`](crate::http::text::formats) publishes them as
//! `pattern`.

use crate::http::values;

/// The check of a format of strings. `None`: the format is not supported.
pub(super) fn of_strings(format: &str) -> Option<fn(&str) -> bool> {
    match format {
        "uuid" => Some(|text| values::parse_uuid(text).is_some()),
        "date-time" => Some(|text| values::parse_time(text).is_some()),
        _ => None,
    }
}

/// The smallest and the largest integer of a format. `None`: the format is not supported.
pub(super) fn of_integers(format: &str) -> Option<(i64, i64)> {
    match format {
        "int32" => Some((i32::MIN.into(), i32::MAX.into())),
        "int64" => Some((i64::MIN, i64::MAX)),
        _ => None,
    }
}
