//! Reads the text of a statement word by word, in a `const fn`. [`CheckedText`](super::text_check)
//! starts it; a text that is not allowed is a panic, so it does not compile (AUTHZ-04, AUTHZ-07).

#![expect(clippy::indexing_slicing, reason = "a `const fn` has no iterators; each index is compared with the length")]

use super::text_check::Use;

/// Names that no statement has: they change settings, or run text as SQL. `set`, `commit`, `do`,
/// `call` and the like cannot occur, since the first word is one of five.
const FORBIDDEN: &[&str] = &[
    "set_config",
    "pg_settings",
    "query_to_xml",
    "query_to_xmlschema",
    "query_to_xml_and_xmlschema",
    "dblink",
    "dblink_exec",
    "pg_notify",
    // They run a text as SQL.
    "ts_stat",
    "ts_rewrite",
    // They end sessions of the same login, or take locks of the kernel.
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_advisory_lock",
    "pg_advisory_xact_lock",
    "pg_try_advisory_lock",
    "pg_try_advisory_xact_lock",
    // Large objects have no row-level security.
    "lo_create",
    "lo_from_bytea",
    "lo_get",
    "lo_import",
    "lo_export",
    "lo_put",
];

/// The end of a change: the one row of the object permit.
const ROW: &str = "where tenant_id = $1 and id = $2";
/// The end of a transition: the same row, if it still has the state that the transition begins at.
const ROW_IN_STATE: &str = "where tenant_id = $1 and id = $2 and status = $4";
/// The column that holds the state of an object.
const STATE: &str = "status";

/// A word of a text: its first byte, and the one after its last.
type Word = (usize, usize);

/// The place in a text, and what was found before it.
struct Scan<'t> {
    usage: Use,
    bytes: &'t [u8],
    at: usize,
    before: Word,
    /// The quote that is open, or 0.
    quote: u8,
    /// Parentheses that are open.
    depth: usize,
    /// Occurrences of `update` and `delete`.
    changes: usize,
    /// Occurrences of the column of the state; in an insert, since the last `insert`.
    states: usize,
    /// One more than the depth of an open `do update`, or 0.
    upsert: usize,
    locks: bool,
    has_tenant: bool,
}

/// Checks a text. Returns whether the statement locks rows.
pub(super) const fn scan(usage: Use, bytes: &[u8]) -> bool {
    let mut scan = Scan::new(usage, bytes);
    while scan.at < bytes.len() {
        if is_word(bytes[scan.at]) {
            scan.read_word();
        } else {
            scan.read_sign();
        }
    }
    scan.finish();
    scan.locks
}

impl<'t> Scan<'t> {
    const fn new(usage: Use, bytes: &'t [u8]) -> Self {
        Self {
            usage,
            bytes,
            at: 0,
            before: (0, 0),
            quote: 0,
            depth: 0,
            changes: 0,
            states: 0,
            upsert: 0,
            locks: false,
            has_tenant: false,
        }
    }

    const fn read_sign(&mut self) {
        let sign = self.bytes[self.at];
        let next = if self.at + 1 < self.bytes.len() { self.bytes[self.at + 1] } else { 0 };
        assert!(sign != b';', "one statement only: no `;`");
        assert!(!(sign == b'-' && next == b'-' || sign == b'/' && next == b'*'), "no comments in SQL");
        assert!(sign != b'\\' && (sign != b'$' || next.is_ascii_digit()), "no escapes and no dollar quotes in SQL");
        if self.quote != 0 {
            if sign == self.quote {
                self.quote = 0;
            }
        } else if sign == b'\'' || sign == b'"' {
            self.quote = sign;
        } else if sign == b'(' {
            self.depth += 1;
        } else if sign == b')' {
            assert!(self.depth > 0, "a `)` without its `(`");
            self.depth -= 1;
            if self.depth + 1 < self.upsert {
                self.upsert = 0;
            }
        }
        self.at += 1;
    }

    const fn read_word(&mut self) {
        let from = self.at;
        while self.at < self.bytes.len() && is_word(self.bytes[self.at]) {
            self.at += 1;
        }
        let (usage, bytes, before, word) = (self.usage, self.bytes, self.before, (from, self.at));
        check_name(usage, bytes, word);
        if before.1 == 0 {
            check_first(usage, bytes, word);
        }
        if same(bytes, word, "update") && (same(bytes, before, "for") || same(bytes, before, "key")) {
            self.locks = true;
        } else {
            self.check_verb(word);
        }
        if same(bytes, word, STATE) {
            self.states += 1;
            self.check_state(word);
        }
        let names_tenant = if usage.is_single() {
            same(bytes, before, "t") && same(bytes, word, "tenant")
        } else {
            same(bytes, word, "tenant_id")
        };
        self.has_tenant |= names_tenant && self.quote != b'\'';
        self.before = word;
    }

    /// Checks a word that is no lock clause.
    const fn check_verb(&mut self, word: Word) {
        let (bytes, before) = (self.bytes, self.before);
        let (update, delete) = (same(bytes, word, "update"), same(bytes, word, "delete"));
        if self.usage.only_reads() {
            let writes = update || delete || same(bytes, word, "insert") || same(bytes, word, "into");
            assert!(!writes, "a `select` changes nothing");
        } else if self.usage.changes() {
            if update || delete {
                self.changes += 1;
                let is_only = self.changes == 1 && self.depth == 0 && self.quote == 0;
                assert!(is_only, "a change has one `update` or `delete`, outside of parentheses");
            }
            let joins = same(bytes, word, "using") || same(bytes, word, "from") && !same(bytes, before, "delete");
            assert!(!(joins && self.depth == 0), "a change joins no table");
        } else {
            assert!(
                !delete && (!update || same(bytes, before, "do")),
                "changing a row takes `update!` and an object permit"
            );
            if same(bytes, word, "insert") {
                self.states = 0;
            }
            if update {
                assert!(self.states == 0, "an object with a `status` is not replaced by an `insert`");
                self.upsert = self.depth + 1;
            }
        }
    }

    /// Checks the use of the column of the state.
    const fn check_state(&self, (_, end): Word) {
        match self.usage {
            Use::Change => assert!(self.states == 0, "a `status` changes by `transition!`"),
            Use::Insert | Use::Create => {
                assert!(self.upsert == 0, "an object with a `status` is not replaced by an `insert`");
            }
            Use::Transition if self.states == 1 => {
                let value = skip(self.bytes, end, "= $3");
                let is_result = value > 0 && (skip(self.bytes, value, ",") > 0 || skip(self.bytes, value, "where") > 0);
                let is_set = same(self.bytes, self.before, "set") && self.depth == 0 && self.quote == 0;
                assert!(is_set && is_result, "a transition has `set status = $3`, before other columns");
            }
            Use::Transition | Use::Select | Use::Read | Use::Inputs => {}
        }
    }

    const fn finish(&self) {
        if self.usage.is_single() {
            assert!(self.has_tenant, "a statement of one message takes its tenant from `t.tenant`");
        } else {
            assert!(self.has_tenant, "a statement names its `tenant_id`");
        }
        assert!(self.depth == 0 && self.quote == 0, "a quote or a `(` without its end");
        match self.usage {
            Use::Change => {
                assert!(ends(self.bytes, ROW), "a change ends with `where tenant_id = $1 and id = $2`");
            }
            Use::Transition => assert!(
                ends(self.bytes, ROW_IN_STATE) && self.states == 2,
                "a transition ends with `where tenant_id = $1 and id = $2 and status = $4`"
            ),
            Use::Select | Use::Insert | Use::Read | Use::Inputs | Use::Create => {}
        }
    }
}

const fn check_name(usage: Use, bytes: &[u8], word: Word) {
    let (_, end) = word;
    let next = if end < bytes.len() { bytes[end] } else { 0 };
    assert!(!(same(bytes, word, "u") && next == b'&'), "no escaped identifiers (`U&`)");
    assert!(!(same(bytes, word, "app") && next == b'.'), "the kernel alone sets the tenant");
    if same(bytes, word, "palisade") {
        let name_end = end + 1 + "row_keys".len();
        let is_row_keys = next == b'.'
            && name_end <= bytes.len()
            && same(bytes, (end + 1, name_end), "row_keys")
            && (name_end == bytes.len() || !is_word(bytes[name_end]));
        assert!(is_row_keys && usage.only_reads(), "of the schema palisade, a service reads `row_keys` only");
    }
    let mut index = 0;
    while index < FORBIDDEN.len() {
        assert!(!same(bytes, word, FORBIDDEN[index]), "the kernel alone changes settings and runs text as SQL");
        index += 1;
    }
}

const fn check_first(usage: Use, bytes: &[u8], word: Word) {
    let is_with = same(bytes, word, "with");
    match usage {
        Use::Select | Use::Read | Use::Inputs => {
            assert!(is_with || same(bytes, word, "select"), "this must be a `select`");
        }
        Use::Insert => assert!(is_with || same(bytes, word, "insert"), "this must be an `insert`"),
        Use::Change | Use::Transition => assert!(
            is_with || same(bytes, word, "update") || same(bytes, word, "delete"),
            "this must be an `update` or a `delete`"
        ),
        Use::Create => {}
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

const fn same(bytes: &[u8], (from, to): Word, word: &str) -> bool {
    let word = word.as_bytes();
    if to - from != word.len() {
        return false;
    }
    let mut index = 0;
    while index < word.len() {
        if bytes[from + index].to_ascii_lowercase() != word[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// The byte after `expected`, which begins at `at` or after spaces; 0 if it does not.
const fn skip(bytes: &[u8], mut at: usize, expected: &str) -> usize {
    let expected = expected.as_bytes();
    let mut index = 0;
    while index < expected.len() {
        if expected[index] == b' ' {
            index += 1;
        } else if at < bytes.len() && bytes[at].is_ascii_whitespace() {
            at += 1;
        } else if at < bytes.len() && bytes[at].eq_ignore_ascii_case(&expected[index]) {
            (at, index) = (at + 1, index + 1);
        } else {
            return 0;
        }
    }
    at
}

/// Whether the text ends with `expected`, whatever the spaces.
const fn ends(bytes: &[u8], expected: &str) -> bool {
    let mut at = bytes.len();
    while at > 0 {
        at -= 1;
        let is_start = at == 0 || !is_word(bytes[at - 1]);
        if is_start && !bytes[at].is_ascii_whitespace() {
            let end = skip(bytes, at, expected);
            if end > 0 && bytes.split_at(end).1.trim_ascii().is_empty() {
                return true;
            }
        }
    }
    false
}
