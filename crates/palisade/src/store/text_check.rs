//! The check of the text of a statement, by a `const fn`: a bad text does not compile (AUTHZ-07).
//!
//! In: the text that a service wrote, and what it is for. Out: the text with proof that it sets no
//! tenant, ends no transaction, and is one statement that names its tenant. The check reads tokens
//! and no grammar; row-level security and the rights of the logins hold in any case.

use super::{statement, text_scan::scan};

/// What a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A `select` in a transaction.
    Select,
    /// An `insert` in a transaction.
    Insert,
    /// An `update` or `delete` in a transaction, of the row of an object permit.
    Change,
    /// As [`Use::Change`], for the state of that row.
    Transition,
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

impl CheckedText {
    /// Checks the service's part of a statement.
    ///
    /// # Panics
    /// In a constant, so at compile time: the text is not allowed.
    #[must_use]
    pub const fn new(usage: Use, own: &'static str) -> Self {
        Self { usage, own, locks: scan(usage, own.as_bytes()) }
    }

    /// Whether `sql` is this text, with the kernel's part around it.
    pub(super) fn is(self, sql: &str) -> bool {
        let (head, tail) = match self.usage {
            Use::Select | Use::Insert | Use::Change | Use::Transition => ("", ""),
            Use::Read => (statement::READ_HEAD, statement::READ_TAIL),
            Use::Inputs => (statement::INPUTS_HEAD, statement::READ_TAIL),
            Use::Create => (statement::CREATE_HEAD, statement::CREATE_TAIL),
        };
        sql.strip_prefix(head).and_then(|sql| sql.strip_suffix(tail)) == Some(self.own)
    }

    /// Whether the statement locks rows.
    pub(super) fn locks(self) -> bool {
        self.locks
    }
}

impl Use {
    pub(super) const fn is_single(self) -> bool {
        matches!(self, Self::Read | Self::Inputs | Self::Create)
    }

    pub(super) const fn changes(self) -> bool {
        matches!(self, Self::Change | Self::Transition)
    }

    pub(super) const fn only_reads(self) -> bool {
        matches!(self, Self::Select | Self::Read | Self::Inputs)
    }
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
        let function = "a function that is not in `FUNCTIONS` of palisade/src/store/text_scan.rs";
        let system = "the kernel alone uses names that begin with `pg_`";
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
            (Use::Select, "select set_config('x', '', true) from orders where tenant_id = $1", function),
            (Use::Select, "select SET_CONFIG('x', '', true) from orders where tenant_id = $1", function),
            (Use::Select, "select \"set_config\"('x', '', true) from orders where tenant_id = $1", function),
            (Use::Change, "update pg_settings set setting = '' where tenant_id = $1", system),
            (Use::Select, "select query_to_xml('commit', true, true, '') where tenant_id = $1", function),
            (Use::Select, "select word from ts_stat($2) where tenant_id = $1", function),
            (Use::Select, "select pg_terminate_backend($2) where tenant_id = $1", system),
            (Use::Select, "select U&\"set\\005fconfig\" where tenant_id = $1", "no escaped identifiers (`U&`)"),
            (Use::Select, "select current_setting('app.tenant_id') where tenant_id = $1", function),
            (Use::Select, "select pg_catalog.set_config\n('x', '', true) from orders where tenant_id = $1", system),
            (Use::Select, "select x.set_config\u{b}('x', '', true) from orders where tenant_id = $1", function),
            (Use::Select, "select \"count\"(*) from orders where tenant_id = $1", function),
            (Use::Select, "select substring(share for update) from orders where tenant_id = $1", function),
            (Use::Select, "select palisade.record_audit_event() where tenant_id = $1", kernel),
            (Use::Select, "select from \"palisade\".idempotency_keys where tenant_id = $1", kernel),
            (Use::Select, "select from palisade.row_keys_old where tenant_id = $1", kernel),
            (Use::Insert, "insert into palisade.row_keys (tenant_id) values ($1)", kernel),
            (Use::Select, "with x as (update orders set note = null where tenant_id = $1) select", reads),
            (Use::Select, "with x as (delete from orders where tenant_id = $1) select", reads),
            (Use::Read, "with x as (insert into orders select t.tenant) select", reads),
            (Use::Select, "select * into copy from orders where tenant_id = $1", reads),
            (
                Use::Select,
                "with x as (select 'key') update orders set status = 'paid' where tenant_id = $1 returning id",
                reads,
            ),
            (Use::Select, "with x as (select 1 as for) update orders set note = null where tenant_id = $1", reads),
            (Use::Select, "select id as \"for\" update orders set note = null where tenant_id = $1", reads),
            (Use::Read, "with x as (select 1 from t for update) update orders set n = t.tenant", reads),
            (Use::Insert, "insert into a select tenant_id, 'do' update", object),
            (Use::Insert, "with x as (delete from orders where tenant_id = $1) insert into a values (1)", object),
            (Use::Create, "o as (update orders set note = null where tenant_id = t.tenant)", object),
        ] {
            assert_eq!(refusal(usage, text).as_deref(), Some(reason), "{text}");
        }
    }

    #[test]
    fn authz_07_functions_that_act_are_refused() {
        let names = "lo_create lo_creat lo_open lo_from_bytea lo_get lo_put lo_import lo_export lo_unlink lo_truncate
            lo_truncate64 lo_lseek lo_lseek64 lo_tell lo_tell64 lowrite loread table_to_xml schema_to_xml
            database_to_xml cursor_to_xml query_to_xml query_to_xmlschema query_to_xml_and_xmlschema ts_stat
            ts_rewrite setval nextval dblink dblink_exec set_config pg_advisory_lock pg_advisory_lock_shared
            pg_advisory_xact_lock_shared pg_advisory_unlock pg_advisory_unlock_all pg_try_advisory_lock pg_notify
            pg_cancel_backend";
        for name in names.split_whitespace() {
            for call in [format!("{name}($2)"), format!("\"{name}\" ($2)"), format!("x.{name}($2)")] {
                let text = format!("select {call} from orders where tenant_id = $1").leak();
                let reason = refusal(Use::Select, text).unwrap_or_default();
                assert!(reason.contains("FUNCTIONS") || reason.contains("`pg_`"), "{text}");
            }
        }
    }

    #[test]
    fn authz_04_text_of_a_change_is_for_the_permitted_row_only() {
        let row = "a change ends with `where tenant_id = $1 and id = $2`";
        let one = "a change has one `update` or `delete`, outside of parentheses";
        let joins = "a change joins no table";
        let unbalanced = "a quote or a `(` without its end";
        for (text, reason) in [
            ("update orders set note = $4 where tenant_id = $1 and id = $3", row),
            ("update orders set note = $3 where tenant_id = $1", row),
            ("update orders set note = $3 where tenant_id = $1 and id = $2 or true", row),
            ("update orders set note = $3 where true or tenant_id = $1 and id = $2", row),
            ("update orders set note = $3 where tenant_id = $1 and id = $20", row),
            ("update orders set note = (select 'x' from b where tenant_id = $1 and id = $2", unbalanced),
            ("update orders set n = tenant_id, note = 'where tenant_id = $1 and id = $2", unbalanced),
            ("update orders set note = $3) where tenant_id = $1 and id = $2", "a `)` without its `(`"),
            ("with x as (update orders set n = 1) select from b where tenant_id = $1 and id = $2", one),
            ("with x as (delete from b) update orders set n = 1 where tenant_id = $1 and id = $2", one),
            ("with x as (insert into b (a) values (')') on conflict (a) do update set a = 1) select", one),
            ("update lines set n = 1 from orders where tenant_id = $1 and id = $2", joins),
            ("delete from lines using orders where tenant_id = $1 and id = $2", joins),
            ("update orders set n = $$x$$ where tenant_id = $1 and id = $2", "no escapes and no dollar quotes in SQL"),
            ("update orders set n = E'\\'(' where tenant_id = $1", "no escapes and no dollar quotes in SQL"),
            ("update orders set status = $3 where tenant_id = $1 and id = $2", "a `status` changes by `transition!`"),
            ("update orders set n = tenant_id, note = 'where tenant_id = $1 and id = $2'", row),
            ("update orders set note = (select 'x' where tenant_id = $1 and id = $2)", row),
            ("update orders set \"status\" = 'x' where tenant_id = $1", "a `status` changes by `transition!`"),
        ] {
            assert_eq!(refusal(Use::Change, text).as_deref(), Some(reason), "{text}");
        }
    }

    #[test]
    fn authz_04_text_of_a_transition_sets_its_result_only() {
        let row = "a transition ends with `where tenant_id = $1 and id = $2 and status = $4`";
        let result = "a transition has `set status = $3`, before other columns";
        for (set, reason) in [
            ("status = $5", result),
            ("status = $30", result),
            ("status = $3 || $5", result),
            ("status = 'paid'", result),
            ("\"status\" = $3", result),
            ("(status, note) = ($3, $5)", result),
            ("note = $3", result),
            ("note = 'set status = $3, '", result),
            ("status = $3, note = $5, status = $6", row),
            ("status = $3, note = coalesce(note, status)", row),
        ] {
            let text = format!("update orders set {set} where tenant_id = $1 and id = $2 and status = $4");
            assert_eq!(refusal(Use::Transition, text.leak()).as_deref(), Some(reason), "{set}");
        }
        for end in ["id = $2", "id = $5 and status = $4", "id = $2 and status = $3", "id = $2 and status = $4 or true"]
        {
            let text = format!("update orders set status = $3 where tenant_id = $1 and {end}");
            assert_eq!(refusal(Use::Transition, text.leak()).as_deref(), Some(row), "{end}");
        }
    }

    fn refuses_upsert(insert: &str, reason: &str) {
        let creation = format!("o as ({insert})").leak();
        assert_eq!(refusal(Use::Create, creation).as_deref(), Some(reason), "{creation}");
        assert_eq!(refusal(Use::Insert, insert.to_owned().leak()).as_deref(), Some(reason), "{insert}");
    }

    #[test]
    fn authz_04_insert_replaces_no_object_with_a_status() {
        let upsert = "on conflict (tenant_id, id) do update set";
        for text in [
            "insert into orders (tenant_id, id) values ($1, $2) on conflict (id) do update set status = $3",
            &format!(
                "insert into orders values ($1, $2, $3) {upsert} updated_at = (select excluded.updated_at
                      where 'do update' <> ''), status = excluded.status"
            ),
            &format!("insert into orders (tenant_id, status) values ($1, 'insert') {upsert} note = $3"),
            &format!("insert into orders (tenant_id) values ($1) {upsert} note = (select 'insert'), status = $3"),
            "insert into orders (tenant_id, \"status\") values ($1, $2) on conflict (id) do update set note = $3",
            "with o as (insert into orders (tenant_id) values ($1) on conflict (id) do update set n = (1), status = $3)
             insert into a values (1)",
        ] {
            let reason = "an object with a `status` is not replaced by an `insert`";
            refuses_upsert(text, reason);
        }
        for rows in [
            "",
            " as o",
            " values ($1, $2)",
            " select count($1)",
            " (select $1, $2)",
            " ((select $1))",
            " (values ($1))",
        ] {
            let text = format!("insert into \"orders\"{rows} {upsert} note = tenant_id");
            refuses_upsert(&text, "an `insert` with `do update` lists its columns");
        }
    }

    #[test]
    fn authz_07_plain_statements_pass() {
        for (usage, text) in [
            (Use::Select, "select id from orders where tenant_id = $1 for no key update"),
            (Use::Select, "select 'a; b -- c', \"update\" from orders where tenant_id = $1 and note <> 'delete'"),
            (Use::Insert, "insert into a as b (tenant_id) values ($1) on conflict (tenant_id) do update set n = 1"),
            (Use::Read, "select k.wrapped from palisade.row_keys k where k.tenant_id = t.tenant"),
            (Use::Insert, "insert into a (tenant_id) values ($1) on conflict (tenant_id) do update set n = 1"),
            (Use::Insert, "insert into a (tenant_id, \"status\") values ($1, '(') returning id as \"id: X<(A)>\""),
            (
                Use::Insert,
                "with n as (insert into a (tenant_id) values ($1) on conflict (tenant_id) do update set n = 1)
                 insert into orders (tenant_id, status) values ($1, $2)",
            ),
            (Use::Change, "delete from orders where tenant_id = $1 and id = $2"),
            (
                Use::Change,
                "with p as (insert into a select $1 from b where tenant_id = $1)
                 update orders set at = extract(year from $3) where tenant_id = $1 and id = $2 ",
            ),
            (Use::Transition, "update orders set status = $3, n = $5\nWHERE tenant_id=$1 and id = $2\nand status = $4"),
            (Use::Create, "o as (insert into orders select t.tenant from t)"),
        ] {
            assert_eq!(refusal(usage, text), None, "{text}");
        }
        assert!(CheckedText::new(Use::Select, "select from a where tenant_id = $1 for share of a for update").locks());
        for text in [
            "select from a where tenant_id = $1",
            "select from a where tenant_id = $1 and b <> 'for update'",
            "select from a where tenant_id = $1 and exists (select from b for update)",
            "select from a where tenant_id = $1 for key share",
        ] {
            assert!(!CheckedText::new(Use::Select, text).locks(), "{text}");
        }
    }
}
