//! Comma-separated values (RFC 4180) that no spreadsheet takes for anything but values (control CRYPTO-09).

use std::fmt::Display;

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

/// What a spreadsheet takes for the beginning of a formula, in each width it has.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// What separates cells or lines in some settings of some spreadsheet.
const SEPARATORS: [char; 5] = [';', '|', '\t', '\r', '\n'];

/// One cell. There is no way to make one of a text that somebody wrote but [`Cell::text`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cell(String);

/// What this program writes itself, and so is no formula.
pub(super) trait Value: Display {}

impl Value for Uuid {}
impl Value for i64 {}
impl Value for &'static str {}

impl Cell {
    /// An identifier, a number or a name of this program's.
    pub(super) fn value(value: &impl Value) -> Self {
        Self(value.to_string())
    }

    /// A time, as RFC 3339 section 5.6 writes it.
    pub(super) fn time(time: DateTime<Utc>) -> Self {
        Self(time.to_rfc3339_opts(SecondsFormat::Micros, true))
    }

    /// A text that somebody wrote. What a spreadsheet would run gets an apostrophe before it: at the beginning, and after
    /// what separates cells where a comma does not.
    pub(super) fn text(text: &str) -> Self {
        let mut safe = String::with_capacity(text.len() + 1);
        if text.starts_with(['\t', '\r', '\n']) {
            safe.push('\'');
        }
        let mut begins = true;
        for c in text.chars() {
            if begins && FORMULA.contains(&c) {
                safe.push('\'');
            }
            begins = SEPARATORS.contains(&c) || begins && (c.is_whitespace() || c == '"');
            safe.push(c);
        }
        Self(safe)
    }

    /// Nothing.
    pub(super) fn empty() -> Self {
        Self(String::new())
    }
}

/// Lines of the file.
pub(super) fn lines<const N: usize>(
    header: Option<[&'static str; N]>,
    rows: impl IntoIterator<Item = [Cell; N]>,
) -> csv::Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    if let Some(header) = header {
        writer.write_record(header)?;
    }
    for row in rows {
        writer.write_record(row.map(|cell| cell.0))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crypto_09_no_text_is_a_formula() {
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
    fn crypto_09_a_cell_stays_one_cell_whatever_is_in_it() {
        let rows = [[Cell::text("a,\"b\"\r\nc"), Cell::value(&-7), Cell::empty()]];
        let lines = lines(Some(["x", "y", "z"]), rows).unwrap();
        assert_eq!(String::from_utf8(lines).unwrap(), "x,y,z\r\n\"a,\"\"b\"\"\r\nc\",-7,\r\n");
    }
}
