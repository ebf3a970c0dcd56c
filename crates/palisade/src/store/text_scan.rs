//! Reads the text of a statement token by token, in a `const fn`. [`CheckedText`](super::text_check)
//! starts it; a text that is not allowed is a panic, so it does not compile (AUTHZ-04, AUTHZ-07).
//! A string is one token, and so is a quoted name: neither is ever a keyword.

#![expect(clippy::indexing_slicing, reason = "a `const fn` has no iterators; each index is compared with the length")]

use super::text_check::Use;

/// The functions that a statement may call. Each depends on its arguments and the time only: none
/// reads a table, runs text as SQL, changes a setting or takes a lock. `substring` is left out,
/// since its `for` would read as a lock clause; `substr` does the same.
const FUNCTIONS: &str = "abs age array_agg array_append array_length array_position array_remove array_to_string
    avg bool_and bool_or btrim cardinality cast ceil char_length clock_timestamp coalesce concat concat_ws count date
    date_bin date_part date_trunc decode dense_rank div encode extract first_value floor format gen_random_uuid
    greatest jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array
    jsonb_build_object jsonb_each jsonb_each_text jsonb_object_agg jsonb_set jsonb_strip_nulls jsonb_to_record
    jsonb_to_recordset jsonb_typeof lag last_value lead least left length lower ltrim make_date make_interval
    make_timestamptz max min mod now ntile nullif numeric octet_length percent_rank position power rank replace
    reverse right round row_number rtrim sha256 sign split_part sqrt starts_with statement_timestamp string_agg
    string_to_array strpos substr sum to_char to_date to_jsonb to_timestamp translate trim trunc unnest upper varchar";

/// The keywords that a `(` may follow.
const KEYWORDS: &str = "all and any array as between by case conflict cube distinct else except exists filter from
    group having ilike in intersect join lateral like limit materialized not offset on or over returning rollup row
    select set sets some then union using values when where";

/// The end of a change: the one row of the object permit.
const ROW: &str = "where tenant_id = $1 and id = $2";
/// The end of a transition: the same row, if it still has the state that the transition begins at.
const ROW_IN_STATE: &str = "where tenant_id = $1 and id = $2 and status = $4";
/// The column that holds the state of an object.
const STATE: &str = "status";

/// A word, a quoted name, a string or a sign: its first byte, and the one after its last.
type Token = (usize, usize);

/// What was found before a place in a text.
struct Scan<'t> {
    usage: Use,
    bytes: &'t [u8],
    before: Token,
    /// Parentheses that are open.
    depth: usize,
    /// Occurrences of `update` and `delete`.
    changes: usize,
    /// Occurrences of the column of the state.
    states: usize,
    locks: bool,
    has_tenant: bool,
    /// Whether the text ends with the row of the object permit.
    ends_with_row: bool,
}

/// Checks a text. Returns whether the statement locks rows.
pub(super) const fn scan(usage: Use, bytes: &[u8]) -> bool {
    let mut scan = Scan {
        usage,
        bytes,
        before: (0, 0),
        depth: 0,
        changes: 0,
        states: 0,
        locks: false,
        has_tenant: false,
        ends_with_row: false,
    };
    let mut token = token_at(bytes, 0);
    check_first(usage, bytes, token);
    while token.0 < token.1 {
        let end = scan.read(token);
        scan.before = token;
        token = token_at(bytes, end);
    }
    scan.finish();
    scan.locks
}

impl Scan<'_> {
    /// Checks a token. Returns the end of what it read.
    const fn read(&mut self, token: Token) -> usize {
        let (bytes, (from, end)) = (self.bytes, token);
        if same(bytes, token, "(") {
            self.depth += 1;
        } else if same(bytes, token, ")") {
            assert!(self.depth > 0, "a `)` without its `(`");
            self.depth -= 1;
        } else if is_word(bytes[from]) || bytes[from] == b'"' {
            self.check_name(token);
            let (update, no_key) = (follows(bytes, from, "for update"), follows(bytes, from, "for no key update"));
            if update + no_key > 0 {
                self.locks |= self.depth == 0;
                return update + no_key;
            }
            self.check_verb(token);
            let row = if matches!(self.usage, Use::Transition) { ROW_IN_STATE } else { ROW };
            let row_end = if self.depth == 0 { follows(bytes, from, row) } else { 0 };
            self.ends_with_row |= row_end > 0 && token_at(bytes, row_end).0 == bytes.len();
        }
        end
    }

    /// Checks a word or a quoted name as the name of something.
    const fn check_name(&mut self, token: Token) {
        let (bytes, (from, end)) = (self.bytes, token);
        let (first, last) = if bytes[from] == b'"' { (from + 1, end - 1) } else { token };
        let escapes = same(bytes, token, "u") && end < bytes.len() && bytes[end] == b'&';
        assert!(!escapes, "no escaped identifiers (`U&`)");
        let is_system = last - first > 3 && same(bytes, (first, first + 3), "pg_");
        assert!(!is_system, "the kernel alone uses names that begin with `pg_`");
        if same(bytes, (first, last), "palisade") {
            let is_row_keys = follows(bytes, end, ". row_keys") > 0;
            assert!(is_row_keys && self.usage.only_reads(), "of the schema palisade, a service reads `row_keys` only");
        }
        // After these two, it is the name of a table, and its columns follow.
        let is_table = same(bytes, self.before, "into") || same(bytes, self.before, "as");
        if !is_table && follows(bytes, end, "(") > 0 {
            let is_allowed = lists(KEYWORDS, bytes, token) || lists(FUNCTIONS, bytes, token);
            assert!(is_allowed, "a function that is not in `FUNCTIONS` of palisade/src/store/text_scan.rs");
        }
        if same(bytes, (first, last), STATE) {
            self.states += 1;
            self.check_state(from);
        }
        let tenant = if self.usage.is_single() { "t.tenant" } else { "tenant_id" };
        self.has_tenant |= follows(bytes, from, tenant) > 0;
    }

    /// Checks a word as a keyword that is no lock clause.
    const fn check_verb(&mut self, token: Token) {
        let (bytes, before) = (self.bytes, self.before);
        let (update, delete) = (same(bytes, token, "update"), same(bytes, token, "delete"));
        let insert = same(bytes, token, "insert");
        if self.usage.only_reads() {
            let writes = update || delete || insert || same(bytes, token, "into");
            assert!(!writes, "a `select` changes nothing");
        } else if self.usage.changes() {
            if update || delete {
                self.changes += 1;
                let is_only = self.changes == 1 && self.depth == 0;
                assert!(is_only, "a change has one `update` or `delete`, outside of parentheses");
            }
            let joins = same(bytes, token, "using") || same(bytes, token, "from") && !same(bytes, before, "delete");
            assert!(!(joins && self.depth == 0), "a change joins no table");
        } else {
            assert!(
                !delete && (!update || same(bytes, before, "do")),
                "changing a row takes `update!` and an object permit"
            );
            if insert {
                check_insert(bytes, token.0);
            }
        }
    }

    /// Checks the use of the column of the state.
    const fn check_state(&self, at: usize) {
        match self.usage {
            Use::Change => assert!(self.states == 0, "a `status` changes by `transition!`"),
            Use::Transition if self.states == 1 => {
                let is_result =
                    follows(self.bytes, at, "status = $3,") + follows(self.bytes, at, "status = $3 where") > 0;
                let is_set = same(self.bytes, self.before, "set") && self.depth == 0;
                assert!(is_set && is_result, "a transition has `set status = $3`, before other columns");
            }
            Use::Transition | Use::Select | Use::Insert | Use::Read | Use::Inputs | Use::Create => {}
        }
    }

    const fn finish(&self) {
        if self.usage.is_single() {
            assert!(self.has_tenant, "a statement of one message takes its tenant from `t.tenant`");
        } else {
            assert!(self.has_tenant, "a statement names its `tenant_id`");
        }
        assert!(self.depth == 0, "a quote or a `(` without its end");
        match self.usage {
            Use::Change => assert!(self.ends_with_row, "a change ends with `where tenant_id = $1 and id = $2`"),
            Use::Transition => assert!(
                self.ends_with_row && self.states == 2,
                "a transition ends with `where tenant_id = $1 and id = $2 and status = $4`"
            ),
            Use::Select | Use::Insert | Use::Read | Use::Inputs | Use::Create => {}
        }
    }
}

/// Checks the `insert` at `at`, to the end of its parentheses. With `do update`, it lists its
/// columns, and names no state.
const fn check_insert(bytes: &[u8], at: usize) {
    let (mut depth, mut upserts, mut has_state) = (1, false, false);
    let mut token = token_at(bytes, at);
    while token.0 < token.1 && depth > 0 {
        if same(bytes, token, "(") {
            depth += 1;
        } else if same(bytes, token, ")") {
            depth -= 1;
        }
        upserts |= follows(bytes, token.0, "do update") > 0;
        has_state |= same(bytes, token, STATE) || same(bytes, token, "\"status\"");
        token = token_at(bytes, token.1);
    }
    assert!(!(upserts && has_state), "an object with a `status` is not replaced by an `insert`");
    let columns = follows(bytes, at, "insert into ? (")
        + follows(bytes, at, "insert into ? as ? (")
        + follows(bytes, at, "insert into ? . ? (");
    let has_columns = columns > 0 && !lists("select with values table (", bytes, token_at(bytes, columns));
    assert!(!upserts || has_columns, "an `insert` with `do update` lists its columns");
}

const fn check_first(usage: Use, bytes: &[u8], first: Token) {
    let is_with = same(bytes, first, "with");
    match usage {
        Use::Select | Use::Read | Use::Inputs => {
            assert!(is_with || same(bytes, first, "select"), "this must be a `select`");
        }
        Use::Insert => assert!(is_with || same(bytes, first, "insert"), "this must be an `insert`"),
        Use::Change | Use::Transition => assert!(
            is_with || same(bytes, first, "update") || same(bytes, first, "delete"),
            "this must be an `update` or a `delete`"
        ),
        Use::Create => {}
    }
}

/// The token at `at` or after white space. At the end of the text, it is empty.
const fn token_at(bytes: &[u8], mut at: usize) -> Token {
    while at < bytes.len() && bytes[at] <= b' ' {
        at += 1;
    }
    let from = at;
    if at == bytes.len() {
        return (from, from);
    }
    let sign = bytes[at];
    at += 1;
    if is_word(sign) {
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
    } else if sign == b'\'' || sign == b'"' {
        while at < bytes.len() && bytes[at] != sign {
            assert!(bytes[at] != b'\\', "no escapes and no dollar quotes in SQL");
            at += 1;
        }
        assert!(at < bytes.len(), "a quote or a `(` without its end");
        at += 1;
    } else {
        let next = if at < bytes.len() { bytes[at] } else { 0 };
        assert!(sign != b';', "one statement only: no `;`");
        assert!(!(sign == b'-' && next == b'-' || sign == b'/' && next == b'*'), "no comments in SQL");
        assert!(sign != b'\\' && (sign != b'$' || next.is_ascii_digit()), "no escapes and no dollar quotes in SQL");
    }
    (from, at)
}

/// As in PostgreSQL, a name may have bytes that are not ASCII.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

const fn part(bytes: &[u8], (from, to): Token) -> &[u8] {
    bytes.split_at(to).0.split_at(from).1
}

const fn same(bytes: &[u8], token: Token, expected: &str) -> bool {
    part(bytes, token).eq_ignore_ascii_case(expected.as_bytes())
}

/// The end of the tokens of `pattern`, which begin at `at`; 0 if they do not, so that the sum of
/// alternatives is the end of one. `?` is any token.
const fn follows(bytes: &[u8], mut at: usize, pattern: &str) -> usize {
    let pattern = pattern.as_bytes();
    let mut expected = token_at(pattern, 0);
    while expected.0 < expected.1 {
        let token = token_at(bytes, at);
        if !same(pattern, expected, "?") && !part(bytes, token).eq_ignore_ascii_case(part(pattern, expected)) {
            return 0;
        }
        (at, expected) = (token.1, token_at(pattern, expected.1));
    }
    at
}

/// Whether `list` has the token.
const fn lists(list: &str, bytes: &[u8], token: Token) -> bool {
    let list = list.as_bytes();
    let mut entry = token_at(list, 0);
    while entry.0 < entry.1 && !part(bytes, token).eq_ignore_ascii_case(part(list, entry)) {
        entry = token_at(list, entry.1);
    }
    entry.0 < entry.1
}
