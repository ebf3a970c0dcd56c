//! The check of the text of a statement, by a `const fn`: a bad text does not compile (AUTHZ-07).
//!
//! In: the text that a service wrote, and what it is for. Out: the text with proof that it sets no
//! tenant, ends no transaction, and is one statement that names its tenant. The check reads words
//! and no grammar; row-level security and the rights of the logins hold in any case.

#![expect(clippy::indexing_slicing, reason = "a `const fn` has no iterators; each index is compared with the length")]

use super::statement;

/// What a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A `select` in a transaction.
    Select,
    /// An `insert` in a transaction.
    Insert,
    /// An `update` or `delete` in a transaction.
    Change,
    /// A whole read in one message.
    Read,
    /// A whole read in one message, with the stored response of an idempotency key.
    Inputs,
    /// A whole creation in one message.
    Create,
}

/// The text of a statement, checked.
#[derive(Clone, Copy, Debug)]
pub struct CheckedText {
    usage: Use,
    own: &'static str,
    locks: bool,
}

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

/// A word of a text: its first byte, and the one after its last.
type Word = (usize, usize);

impl CheckedText {
    /// Checks the service's part of a statement.
    ///
    /// # Panics
    /// In a constant, so at compile time: the text is not allowed.
    #[must_use]
    pub const fn new(usage: Use, own: &'static str) -> Self {
        let bytes = own.as_bytes();
        let (mut at, mut before, mut is_first, mut locks, mut has_tenant) = (0, (0, 0), true, false, false);
        while at < bytes.len() {
            if !is_word(bytes[at]) {
                check_sign(bytes, at);
                at += 1;
                continue;
            }
            let from = at;
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
            let word = (from, at);
            check_name(usage, bytes, word);
            if is_first {
                check_first(usage, bytes, word);
            }
            if same(bytes, word, "update") && (same(bytes, before, "for") || same(bytes, before, "key")) {
                locks = true;
            } else {
                check_verb(usage, bytes, before, word);
            }
            has_tenant |= if usage.is_single() {
                same(bytes, before, "t") && same(bytes, word, "tenant")
            } else {
                same(bytes, word, "tenant_id")
            };
            (before, is_first) = (word, false);
        }
        if usage.is_single() {
            assert!(has_tenant, "a statement of one message takes its tenant from `t.tenant`");
        } else {
            assert!(has_tenant, "a statement names its `tenant_id`");
        }
        Self { usage, own, locks }
    }

    /// Whether `sql` is this text, with the kernel's part around it.
    pub(super) fn is(self, sql: &str) -> bool {
        let (head, tail) = match self.usage {
            Use::Select | Use::Insert | Use::Change => ("", ""),
            Use::Read => (statement::READ_HEAD, statement::READ_TAIL),
            Use::Inputs => (statement::INPUTS_HEAD, statement::READ_TAIL),
            Use::Create => (statement::CREATE_HEAD, statement::CREATE_TAIL),
        };
        sql.strip_prefix(head).and_then(|sql| sql.strip_suffix(tail)) == Some(self.own)
    }

    /// Whether the text has this word.
    pub(super) fn mentions(self, word: &str) -> bool {
        self.own.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|other| other.eq_ignore_ascii_case(word))
    }

    /// Whether the statement locks rows.
    pub(super) fn locks(self) -> bool {
        self.locks
    }
}

impl Use {
    const fn is_single(self) -> bool {
        matches!(self, Self::Read | Self::Inputs | Self::Create)
    }

    const fn only_reads(self) -> bool {
        matches!(self, Self::Select | Self::Read | Self::Inputs)
    }
}

const fn check_sign(bytes: &[u8], at: usize) {
    assert!(bytes[at] != b';', "one statement only: no `;`");
    let next = if at + 1 < bytes.len() { bytes[at + 1] } else { 0 };
    assert!(!(bytes[at] == b'-' && next == b'-' || bytes[at] == b'/' && next == b'*'), "no comments in SQL");
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
        Use::Change => assert!(
            is_with || same(bytes, word, "update") || same(bytes, word, "delete"),
            "this must be an `update` or a `delete`"
        ),
        Use::Create => {}
    }
}

/// Checks a word that is no lock clause.
const fn check_verb(usage: Use, bytes: &[u8], before: Word, word: Word) {
    let (update, delete) = (same(bytes, word, "update"), same(bytes, word, "delete"));
    if usage.only_reads() {
        let writes = update || delete || same(bytes, word, "insert") || same(bytes, word, "into");
        assert!(!writes, "a `select` changes nothing");
    } else if !matches!(usage, Use::Change) {
        let is_upsert = update && same(bytes, before, "do");
        assert!(!delete && (!update || is_upsert), "changing a row takes `update!` and an object permit");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(usage: Use, text: &'static str) -> Option<String> {
        let refused = std::panic::catch_unwind(|| CheckedText::new(usage, text)).err()?;
        Some(refused.downcast_ref::<&str>().map_or_else(String::new, |reason| (*reason).to_owned()))
    }

    #[test]
    fn authz_07_text_that_is_not_allowed_is_refused() {
        let reads = "a `select` changes nothing";
        let settings = "the kernel alone changes settings and runs text as SQL";
        let kernel = "of the schema palisade, a service reads `row_keys` only";
        let object = "changing a row takes `update!` and an object permit";
        for (usage, text, reason) in [
            (Use::Select, "select id from orders where id = $1", "a statement names its `tenant_id`"),
            (
                Use::Read,
                "select id from orders where tenant_id = $1",
                "a statement of one message takes its tenant from `t.tenant`",
            ),
            (Use::Select, "select id from orders -- tenant_id", "no comments in SQL"),
            (Use::Select, "select id from orders /* tenant_id */", "no comments in SQL"),
            (Use::Insert, "insert into orders (tenant_id) values ($1); commit", "one statement only: no `;`"),
            (Use::Insert, "commit", "this must be an `insert`"),
            (Use::Change, "set role app_operator", "this must be an `update` or a `delete`"),
            (Use::Read, "do $$ begin end $$", "this must be a `select`"),
            (Use::Select, "select set_config('x', '', true) from orders where tenant_id = $1", settings),
            (Use::Select, "select SET_CONFIG('x', '', true) from orders where tenant_id = $1", settings),
            (Use::Select, "select \"set_config\"('x', '', true) from orders where tenant_id = $1", settings),
            (Use::Change, "update pg_settings set setting = '' where tenant_id = $1", settings),
            (Use::Select, "select query_to_xml('commit', true, true, '') where tenant_id = $1", settings),
            (Use::Select, "select word from ts_stat($2) where tenant_id = $1", settings),
            (Use::Select, "select pg_terminate_backend($2) where tenant_id = $1", settings),
            (Use::Select, "select U&\"set\\005fconfig\" where tenant_id = $1", "no escaped identifiers (`U&`)"),
            (
                Use::Select,
                "select current_setting('app.tenant_id') where tenant_id = $1",
                "the kernel alone sets the tenant",
            ),
            (Use::Select, "select palisade.record_audit_event() where tenant_id = $1", kernel),
            (Use::Select, "select from \"palisade\".idempotency_keys where tenant_id = $1", kernel),
            (Use::Select, "select from palisade.row_keys_old where tenant_id = $1", kernel),
            (Use::Insert, "insert into palisade.row_keys (tenant_id) values ($1)", kernel),
            (Use::Select, "with x as (update orders set note = null where tenant_id = $1) select", reads),
            (Use::Select, "with x as (delete from orders where tenant_id = $1) select", reads),
            (Use::Read, "with x as (insert into orders select t.tenant) select", reads),
            (Use::Select, "select * into copy from orders where tenant_id = $1", reads),
            (Use::Insert, "with x as (delete from orders where tenant_id = $1) insert into a values (1)", object),
            (Use::Create, "o as (update orders set note = null where tenant_id = t.tenant)", object),
        ] {
            assert_eq!(refusal(usage, text).as_deref(), Some(reason), "{text}");
        }
    }

    #[test]
    fn authz_07_plain_statements_pass() {
        for (usage, text) in [
            (Use::Select, "select id from orders where tenant_id = $1 for no key update"),
            (Use::Read, "select k.wrapped from palisade.row_keys k where k.tenant_id = t.tenant"),
            (Use::Insert, "insert into a (tenant_id) values ($1) on conflict (tenant_id) do update set n = 1"),
            (Use::Change, "delete from orders where tenant_id = $1"),
            (Use::Create, "o as (insert into orders select t.tenant from t)"),
        ] {
            assert_eq!(refusal(usage, text), None, "{text}");
        }
        assert!(CheckedText::new(Use::Select, "select from a where tenant_id = $1 for share of a for update").locks());
        assert!(!CheckedText::new(Use::Select, "select from a where tenant_id = $1").locks());
    }
}
