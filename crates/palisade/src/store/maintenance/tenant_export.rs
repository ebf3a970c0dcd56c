//! Everything that a tenant owns, as lines of JSON, with sealed fields in plain text (CRYPTO-09).
//!
//! In: a tenant, or one row of it. Out: each row of each table with `tenant_id` that the login
//! `app_reader` may read, column by column, from one snapshot. So secrets of credentials stay out,
//! and a new table of the service is in without code. `ops::tenant_export` encrypts the lines.

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
    sync::Arc,
};

use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::Maintenance;
use crate::{
    crypto::{self, DataKey, RowKey},
    db::{DbError, Keyring, PooledTransaction},
    model::TenantId,
    store::RegisteredTable,
};

/// Rows that are read at once.
const PAGE_ROWS: usize = 500;

/// One row and the rows that refer to it, directly or through others: the data of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSubject {
    table: String,
    id: Uuid,
}

impl FromStr for ExportSubject {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected a table and the id of a row, such as `customers/0190a000-0000-7000-8000-000000000001`";
        let (table, id) = text.split_once('/').ok_or(expected)?;
        let is_name = !table.is_empty() && table.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let id = id.parse().map_err(|_| expected)?;
        if is_name { Ok(Self { table: table.to_owned(), id }) } else { Err(expected) }
    }
}

impl std::fmt::Display for ExportSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.table, self.id)
    }
}

/// An export in progress.
pub struct TenantExport {
    tx: PooledTransaction,
    keyring: Arc<Keyring>,
    sealed: Arc<[RegisteredTable]>,
    tenant: TenantId,
    /// Tables that were not read yet, with the statements that read them.
    tables: std::vec::IntoIter<(String, String)>,
    current: Option<String>,
    /// `None`: the data key cannot be unwrapped.
    data_keys: HashMap<i32, Option<Arc<DataKey>>>,
    rows: u64,
    unreadable: u64,
    is_finished: bool,
}

impl std::fmt::Debug for TenantExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantExport").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// Columns of one table and of the one that it refers to.
struct Reference {
    child: String,
    columns: String,
    parent: String,
    parent_columns: String,
}

impl Maintenance {
    /// Begins an export of the whole tenant, or of a subject.
    ///
    /// # Errors
    /// [`DbError::Inconsistent`]: there is no such row.
    pub async fn export_tenant(
        &self,
        tenant: TenantId,
        subject: Option<&ExportSubject>,
    ) -> Result<TenantExport, DbError> {
        let mut tx = self.0.reader.begin("begin isolation level repeatable read read only", tenant).await?;
        // The receiver may be slow.
        for timeout in
            ["set local statement_timeout = '1min'", "set local idle_in_transaction_session_timeout = '5min'"]
        {
            sqlx::query(timeout).execute(tx.connection()?).await?;
        }
        let conditions = match subject {
            Some(subject) => Some(subject_conditions(&mut tx, subject).await?),
            None => None,
        };
        let sealed = Arc::clone(&self.0.sealed_tables);
        let readable = sqlx::query!(
            r#"select format('%I.%I', c.relnamespace::regnamespace, c.relname) as "name!",
                      string_agg(format('r.%I', a.attname), ', ' order by a.attnum) as "columns!"
               from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               where c.relnamespace in ('palisade'::regnamespace, 'public'::regnamespace) and c.relkind in ('r', 'p')
                 and not c.relispartition and c.oid <> 'palisade.row_keys'::regclass
                 and a.atttypid <> 'palisade.blind_index'::regtype
                 and has_column_privilege(c.oid, a.attnum, 'select')
               group by c.oid, c.relnamespace, c.relname having bool_or(a.attname = 'tenant_id') order by 1"#
        );
        let readable = readable.fetch_all(tx.connection()?).await?;
        let statement = |(name, columns): (String, String)| {
            let condition = match &conditions {
                Some(conditions) => conditions.get(&name)?.as_str(),
                None => "true",
            };
            let plain_name = name.strip_prefix("public.").unwrap_or(&name);
            let key = if sealed.iter().any(|table| table.name == plain_name) {
                format!(
                    "left join palisade.row_keys k
                     on k.tenant_id = '{tenant}' and k.sealed_table = '{plain_name}' and k.row_id = s.id"
                )
            } else {
                "left join (select null::integer as data_key, null::bytea as wrapped) k on true".to_owned()
            };
            let statement = format!(
                "declare export no scroll cursor for select to_jsonb(s), k.data_key, k.wrapped from (
                     select {columns} from {name} r where r.tenant_id = '{tenant}' and ({condition})) s {key}"
            );
            Some((plain_name.to_owned(), statement))
        };
        let tables: Vec<_> = readable.into_iter().map(|row| (row.name, row.columns)).filter_map(statement).collect();
        if subject.is_some_and(|subject| tables.iter().all(|(name, _)| *name != subject.table)) {
            return Err(DbError::Inconsistent);
        }
        Ok(TenantExport {
            tx,
            keyring: Arc::clone(&self.0.keyring),
            sealed: Arc::clone(&self.0.sealed_tables),
            tenant,
            tables: tables.into_iter(),
            current: None,
            data_keys: HashMap::new(),
            rows: 0,
            unreadable: 0,
            is_finished: false,
        })
    }
}

/// The condition on a row `r` of each table that belongs to the subject.
async fn subject_conditions(
    tx: &mut PooledTransaction,
    subject: &ExportSubject,
) -> Result<BTreeMap<String, String>, DbError> {
    let references = sqlx::query_as!(
        Reference,
        r#"select f.conrelid::regclass::text as "child!", f.confrelid::regclass::text as "parent!",
                  (select string_agg(format('r.%I', a.attname), ', ' order by k.no)
                   from unnest(f.conkey) with ordinality k (attnum, no)
                   join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.attnum) as "columns!",
                  (select string_agg(format('r.%I', a.attname), ', ' order by k.no)
                   from unnest(f.confkey) with ordinality k (attnum, no)
                   join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.attnum) as "parent_columns!"
           from pg_constraint f join pg_class c on c.oid = f.conrelid
           where f.contype = 'f' and c.relnamespace = 'public'::regnamespace and f.conrelid <> f.confrelid"#
    );
    let references = references.fetch_all(tx.connection()?).await?;
    let id = subject.id;
    let mut found = BTreeMap::from([(format!("public.{}", subject.table), format!("r.id = '{id}'"))]);
    found.insert("palisade.audit_events".to_owned(), format!("r.object = '{id}'"));
    let qualified = |name: &str| if name.contains('.') { name.to_owned() } else { format!("public.{name}") };
    loop {
        let mut next: BTreeMap<String, String> = BTreeMap::new();
        for Reference { child, columns, parent, parent_columns } in &references {
            let (child, parent) = (qualified(child), qualified(parent));
            let Some(condition) = found.get(&parent).filter(|_| !found.contains_key(&child)) else { continue };
            // The inner `r` is a row of the parent.
            let refers = format!("({columns}) in (select {parent_columns} from {parent} r where {condition})");
            next.entry(child).and_modify(|known| *known = format!("{known} or {refers}")).or_insert(refers);
        }
        if next.is_empty() {
            return Ok(found);
        }
        found.extend(next);
    }
}

impl TenantExport {
    /// The next lines; `None` after the last, which has the number of rows.
    pub async fn next_lines(&mut self) -> Result<Option<Vec<u8>>, DbError> {
        loop {
            let Some(table) = self.current.clone() else {
                let Some((table, declare)) = self.tables.next() else { return Ok(self.finish()) };
                sqlx::query(AssertSqlSafe(declare)).execute(self.tx.connection()?).await?;
                self.current = Some(table);
                continue;
            };
            let fetch = sqlx::query(AssertSqlSafe(format!("fetch {PAGE_ROWS} from export")));
            let rows = fetch.fetch_all(self.tx.connection()?).await?;
            if rows.len() < PAGE_ROWS {
                sqlx::query("close export").execute(self.tx.connection()?).await?;
                self.current = None;
            }
            if !rows.is_empty() {
                return self.encode(&table, rows).await.map(Some);
            }
        }
    }

    fn finish(&mut self) -> Option<Vec<u8>> {
        let end = json!({ "end": { "rows": self.rows, "unreadableFields": self.unreadable } });
        (!std::mem::replace(&mut self.is_finished, true)).then(|| format!("{end}\n").into_bytes())
    }

    async fn encode(&mut self, table: &str, rows: Vec<PgRow>) -> Result<Vec<u8>, DbError> {
        let sealed = Arc::clone(&self.sealed);
        let sealed = sealed.iter().find(|sealed| sealed.name == table);
        let mut lines = Vec::new();
        for row in rows {
            let mut members: Map<String, Value> = match row.try_get(0)? {
                Value::Object(members) => members,
                _ => Map::new(),
            };
            members.remove("tenant_id");
            if let Some(sealed) = sealed {
                let key = self.row_key(sealed, &members, row.try_get(1)?, row.try_get(2)?).await?;
                self.open(sealed, &mut members, key.as_ref());
            }
            self.rows += 1;
            lines.extend_from_slice(json!({ "table": table, "row": members }).to_string().as_bytes());
            lines.push(b'\n');
        }
        Ok(lines)
    }

    async fn row_key(
        &mut self,
        table: &RegisteredTable,
        members: &Map<String, Value>,
        version: Option<i32>,
        wrapped: Option<Vec<u8>>,
    ) -> Result<Option<RowKey>, DbError> {
        let id = members.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
        let (Some(id), Some(version), Some(wrapped)) = (id, version, wrapped) else { return Ok(None) };
        if !self.data_keys.contains_key(&version) {
            let key = match self.keyring.fetch(self.tenant, version).await {
                Ok(key) => Some(key),
                Err(DbError::KeyDestroyed | DbError::KeyDropped) => None,
                Err(DbError::MasterKey(error)) if error.concerns_one_data_key() => None,
                Err(error) => return Err(error),
            };
            self.data_keys.insert(version, key);
        }
        let key = self.data_keys.get(&version).and_then(Option::as_ref);
        Ok(key.and_then(|key| key.unwrap_row_key(table.name, id, wrapped).ok()))
    }

    /// Replaces sealed columns by their plain text. One that does not open becomes null, and counts.
    fn open(&mut self, table: &RegisteredTable, members: &mut Map<String, Value>, key: Option<&RowKey>) {
        for column in table.columns {
            let Some(value) = members.get_mut(column.name).filter(|value| !value.is_null()) else { continue };
            // PostgreSQL writes bytes as `\x` and hexadecimal digits.
            let bytes = value.as_str().and_then(|text| crypto::from_hex(text.strip_prefix("\\x")?));
            let plain =
                bytes.zip(key).and_then(|(bytes, key)| crypto::open_column((table.name, column.name), &bytes, key));
            self.unreadable += u64::from(plain.is_none());
            *value = plain.map_or(Value::Null, Value::String);
        }
    }
}
