//! CSV encoding (RFC 4180) that spreadsheets never run as formulas (CRYPTO-09).
//!
//! A [`Cell`] holds either a value of the service (id, number, name of an enumeration) or escaped
//! text. No constructor takes unescaped text from callers.

use std::fmt::Display;

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

/// Characters that start a formula in a spreadsheet, in ASCII and in full width.
const FORMULA_PREFIXES: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// Characters that some spreadsheets, in some settings, read as the end of a cell or line.
const SEPARATORS: [char; 5] = [';', '|', '\t', '\r', '\n'];

/// One cell. Text from callers gets in only through [`Cell::text`], which escapes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Cell(String);

/// A value that the service itself writes, so that it is never a formula.
pub trait SafeValue: Display {}

impl SafeValue for Uuid {}
impl SafeValue for i64 {}
impl SafeValue for &'static str {}

impl Cell {
    /// A value of the service.
    #[must_use]
    pub fn value(value: &impl SafeValue) -> Self {
        Self(value.to_string())
    }

    /// A time in RFC 3339 (section 5.6), with microseconds.
    #[must_use]
    pub fn time(time: DateTime<Utc>) -> Self {
        Self(time.to_rfc3339_opts(SecondsFormat::Micros, true))
    }

    /// Text from a caller. An apostrophe goes before every character that could start a formula: at
    /// the beginning, and after each separator of a spreadsheet with other settings.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let mut escaped = String::with_capacity(text.len() + 1);
        if text.starts_with(['\t', '\r', '\n']) {
            escaped.push('\'');
        }
        let mut at_cell_start = true;
        for c in text.chars() {
            if at_cell_start && FORMULA_PREFIXES.contains(&c) {
                escaped.push('\'');
            }
            at_cell_start = SEPARATORS.contains(&c) || at_cell_start && (c.is_whitespace() || c == '"');
            escaped.push(c);
        }
        Self(escaped)
    }

    /// An absent value.
    #[must_use]
    pub fn empty() -> Self {
        Self(String::new())
    }
}

/// Encodes rows, after a header line if there is one. Lines end in CRLF.
///
/// # Errors
/// A row with more or fewer cells than the others.
pub(super) fn encode(
    header: Option<&[&'static str]>,
    rows: impl IntoIterator<Item = Vec<Cell>>,
) -> csv::Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    if let Some(header) = header {
        writer.write_record(header)?;
    }
    for row in rows {
        writer.write_record(row.into_iter().map(|cell| cell.0))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crypto_09_text_that_starts_a_formula_is_escaped() {
        for (formula, safe) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            (" =1", " '=1"),
            ("\t=1", "'\t'=1"),
            ("\ta", "'\ta"),
            ("\u{ff1d}1", "'\u{ff1d}1"),
            ("\n-1", "'\n'-1"),
            ("\u{a0}=1", "\u{a0}'=1"),
            ("a;=1;b", "a;'=1;b"),
            ("a;\"=1;b", "a;\"'=1;b"),
            ("a| @b", "a| '@b"),
            ("a\n+b", "a\n'+b"),
            ("a\r-b\t=c", "a\r'-b\t'=c"),
        ] {
            assert_eq!(Cell::text(formula).0, safe);
        }
        for text in ["", "a=b", "leave at the door", "1-2", "'=1", "2 x A-1; 3 x B-2", "a;b=c", "a, =b"] {
            assert_eq!(Cell::text(text).0, text);
        }
    }

    #[test]
    fn crypto_09_separators_and_quotes_stay_in_their_cell() {
        let rows = [vec![Cell::text("a,\"b\"\r\nc"), Cell::value(&-7), Cell::empty()]];
        let encoded = encode(Some(&["x", "y", "z"]), rows).unwrap();
        assert!(encode(Some(&["x", "y"]), [vec![Cell::empty()]]).is_err());
        assert_eq!(String::from_utf8(encoded).unwrap(), "x,y,z\r\n\"a,\"\"b\"\"\r\nc\",-7,\r\n");
    }
}
