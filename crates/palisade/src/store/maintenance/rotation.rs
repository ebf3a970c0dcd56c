//! Key rotation: adds data keys, and re-encrypts the rows of sealed tables in batches (CRYPTO-05).
//!
//! In: a tenant and a position in its row keys. Out: one batch that has the newest data key and the
//! primary index key, in one transaction. `ops::keys` calls it until no row is left. Requests are
//! served meanwhile; a write to a row waits for the batch that holds it.
//!
//! The service registers its tables ([`SealedTable`](crate::store::SealedTable)). A rotation reads
//! and writes bytes; the plain text stays in [`crate::crypto`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::Maintenance;
use crate::{
    crypto::{self, DataKey, IndexKeys, RowKey, SealError},
    db::{DataKeyState, DbError},
    model::TenantId,
    store::RegisteredTable,
};

/// Rows per transaction. They are locked together for some milliseconds.
const BATCH_SIZE: i64 = 50;

/// A row that lacks the newest data key or the primary index key.
struct OutdatedRow {
    id: Uuid,
    /// The version of its data key.
    data_key: i32,
}

/// Where a batch begins: a registered table, and a row of it. The default is the first.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResealPosition {
    table: usize,
    after: Uuid,
}

/// Result of one batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResealedBatch {
    /// Number of rows that were re-encrypted.
    pub resealed: usize,
    /// How many of those had an older data key. The others lacked an index under the primary key.
    pub had_older_key: usize,
    /// Number of rows that do not decrypt and were left unchanged. Each is reported as an event, or
    /// its data key is.
    pub unreadable: usize,
    /// Where the next batch begins. `None` if there is none.
    pub next: Option<ResealPosition>,
}

/// How many rows of a tenant need a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// Version of the data key or index key.
    pub version: i32,
    /// Number of rows.
    pub records: i64,
}

impl Maintenance {
    /// Lists the tenants that have data keys, a page of them from this id on.
    pub async fn tenants_with_keys(&self, from: Uuid) -> Result<Vec<TenantId>, DbError> {
        self.0.keyring.tenants(from).await
    }

    /// Whether the tenant has data keys that are not destroyed.
    pub async fn has_data_keys(&self, tenant: TenantId) -> Result<bool, DbError> {
        Ok(!self.0.keyring.data_key_versions(tenant).await?.is_empty())
    }

    /// Adds a data key for a tenant. Returns its version. New rows get it on every replica
    /// within `APP_KEYS__REFRESH_MS`.
    pub async fn add_data_key(&self, tenant: TenantId) -> Result<i32, DbError> {
        self.0.keyring.add_next(tenant).await
    }

    /// How long rows may still get the previous data key after a new one was added.
    ///
    /// A replica caches the newest data key, and then needs up to the longest wait and statement to
    /// store what it sealed. Holds if all replicas have the same settings and no vault is slow; `keys
    /// status` shows what is left.
    #[must_use]
    pub fn propagation_delay(&self) -> Duration {
        self.0.keyring.newest_ttl + self.0.shares.timeout + self.0.writer.longest_statement()
    }

    /// Lists the data keys of a tenant, by version.
    pub async fn data_keys(&self, tenant: TenantId) -> Result<Vec<DataKeyState>, DbError> {
        self.0.keyring.versions(tenant).await
    }

    /// Counts the rows that need each data key, and those that need each index key.
    pub async fn key_uses(&self, tenant: TenantId) -> Result<(Vec<KeyUse>, Vec<KeyUse>), DbError> {
        let mut tx = self.0.reader.begin("begin read only", tenant).await?;
        // Counting millions of rows takes long, and blocks nothing.
        sqlx::query("set local statement_timeout = '1min'").execute(tx.connection()?).await?;
        let data_keys = sqlx::query_as!(
            KeyUse,
            r#"select data_key as version, count(*) as "records!" from palisade.row_keys where tenant_id = $1
               group by data_key order by data_key"#,
            tenant.uuid()
        )
        .fetch_all(tx.connection()?)
        .await?;
        let index_keys = sqlx::query_as!(
            KeyUse,
            r#"select version as "version!",
                      (select count(*) from palisade.row_keys k
                       where k.tenant_id = $1 and k.index_key = version) as "records!"
               from unnest($2::integer[]) version"#,
            tenant.uuid(),
            &self.0.keyring.index_versions().await?
        )
        .fetch_all(tx.connection()?)
        .await?;
        tx.rollback().await?;
        Ok((data_keys, index_keys))
    }

    /// Re-encrypts the next rows from `position` that lack the newest data key or the primary index
    /// key, up to fifty of one table, each with a new row key.
    ///
    /// The batch is one transaction. Concurrent batches do not process a row twice. Readers see the
    /// previous version of a row, writers wait for the row lock.
    pub async fn reseal_batch(&self, tenant: TenantId, position: ResealPosition) -> Result<ResealedBatch, DbError> {
        let tables = &self.0.sealed_tables;
        let Some(table) = tables.get(position.table) else { return Ok(ResealedBatch::default()) };
        let newest = self.0.keyring.newest(tenant).await?;
        let indexes = self.0.keyring.indexes();
        let index_key = table.is_indexed().then(|| i32::from(indexes.primary()));
        let found = self.find_batch(tenant, (table, position.after), (newest.version(), index_key)).await?;
        let is_full = i64::try_from(found.len()).is_ok_and(|found| found == BATCH_SIZE);
        let next = match found.last().filter(|_| is_full) {
            Some(row) => Some(ResealPosition { after: row.id, ..position }),
            None => Some(ResealPosition { table: position.table + 1, after: Uuid::nil() })
                .filter(|next| next.table < tables.len()),
        };
        let mut batch = ResealedBatch { next, ..ResealedBatch::default() };
        // Before any row is locked: a vault may be slow.
        let old_keys = self.unwrap_data_keys(tenant, found.iter().map(|row| row.data_key).collect()).await?;
        if old_keys.is_empty() {
            return Ok(batch);
        }
        let ids: Vec<Uuid> = found.iter().map(|row| row.id).collect();
        let mut tx = self.0.writer.begin("begin", tenant).await?;
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&table.select)))
            .bind(tenant.uuid())
            .bind(&ids)
            .bind(newest.version())
            .bind(index_key)
            .fetch_all(tx.connection()?)
            .await?;
        for row in rows {
            let row = SealedRow::read(&row, table)?;
            // The row got yet another data key after the scan. The next pass finds it.
            let Some(key) = old_keys.get(&row.data_key) else { continue };
            let had_older_key = row.data_key < newest.version();
            let resealed = key.as_ref().map(|key| row.reseal(tenant, (key, &newest), &indexes));
            let Some(Ok(resealed)) = resealed else {
                batch.unreadable += 1;
                continue;
            };
            resealed.store(tx.connection()?, tenant, index_key).await?;
            batch.resealed += 1;
            batch.had_older_key += usize::from(had_older_key);
        }
        tx.commit().await?;
        Ok(batch)
    }

    /// Finds the rows of the next batch, by the indexes of `palisade.row_keys`: a tenant may have
    /// millions, and all of them up to date. `index_key` is `None` for a table without blind index.
    async fn find_batch(
        &self,
        tenant: TenantId,
        (table, after): (&RegisteredTable, Uuid),
        (newest, index_key): (i32, Option<i32>),
    ) -> Result<Vec<OutdatedRow>, DbError> {
        let mut data_keys = self.0.keyring.data_key_versions(tenant).await?;
        data_keys.retain(|version| *version < newest);
        let mut index_keys = self.0.keyring.index_versions().await?;
        index_keys.retain(|version| index_key.is_some_and(|primary| *version != primary));
        let mut tx = self.0.writer.begin("begin read only", tenant).await?;
        let found = sqlx::query_as!(
            OutdatedRow,
            // The last part: rows of a tenant whose destroyed data keys were restored.
            r#"select id as "id!", data_key as "data_key!" from (
                   select f.* from unnest($3::integer[]) old (version), lateral (
                       select k.row_id, k.data_key from palisade.row_keys k
                       where k.tenant_id = $1 and k.sealed_table = $7 and k.data_key = old.version
                         and k.row_id > $2 order by k.row_id limit $6) f
                   union
                   select f.* from unnest($4::integer[]) old (version), lateral (
                       select k.row_id, k.data_key from palisade.row_keys k
                       where k.tenant_id = $1 and k.sealed_table = $7 and k.index_key = old.version
                         and k.row_id > $2 and k.data_key <= $5 order by k.row_id limit $6) f
                   union
                   select k.row_id, k.data_key from palisade.row_keys k
                   where k.tenant_id = $1 and k.sealed_table = $7 and k.index_key is null and $8
                     and k.row_id > $2 and k.data_key <= $5
               ) outdated (id, data_key)
               order by id limit $6"#,
            tenant.uuid(),
            after,
            &data_keys,
            &index_keys,
            newest,
            BATCH_SIZE,
            table.name,
            index_key.is_some()
        );
        let found = found.fetch_all(tx.connection()?).await?;
        tx.rollback().await?;
        Ok(found)
    }

    /// Unwraps the data keys of a batch. `None` stands for a data key that cannot be unwrapped.
    async fn unwrap_data_keys(
        &self,
        tenant: TenantId,
        versions: BTreeSet<i32>,
    ) -> Result<BTreeMap<i32, Option<Arc<DataKey>>>, DbError> {
        let mut data_keys = BTreeMap::new();
        for version in versions {
            match self.0.keyring.fetch(tenant, version).await {
                Ok(key) => drop(data_keys.insert(version, Some(key))),
                Err(DbError::MasterKey(error)) if error.concerns_one_data_key() => {
                    drop(data_keys.insert(version, None));
                }
                // Another command has re-encrypted those rows in between.
                Err(DbError::KeyDropped) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(data_keys)
    }
}

/// A locked row of a sealed table, with its row key.
struct SealedRow<'t> {
    table: &'t RegisteredTable,
    id: Uuid,
    data_key: i32,
    wrapped: Vec<u8>,
    /// The sealed columns, in the order of the table.
    columns: Vec<Option<Vec<u8>>>,
}

/// A row as a rotation stores it.
struct ResealedRow<'t> {
    table: &'t RegisteredTable,
    key: RowKey,
    /// Each sealed column, followed by its blind index.
    columns: Vec<Option<Vec<u8>>>,
}

impl<'t> SealedRow<'t> {
    fn read(row: &PgRow, table: &'t RegisteredTable) -> Result<Self, DbError> {
        Ok(Self {
            table,
            id: row.try_get(0)?,
            data_key: row.try_get(1)?,
            wrapped: row.try_get(2)?,
            columns: (3..).take(table.columns.len()).map(|at| row.try_get(at)).collect::<Result<_, _>>()?,
        })
    }

    /// Re-encrypts the row with a new row key, and computes its blind indexes from the plain texts.
    /// A row may have none: after `keys destroy`, the data keys of a tenant may have been restored
    /// from a backup.
    fn reseal(
        self,
        tenant: TenantId,
        (old, new): (&DataKey, &DataKey),
        indexes: &IndexKeys,
    ) -> Result<ResealedRow<'t>, SealError> {
        let table = self.table;
        let old = old.unwrap_row_key(table.name, self.id, self.wrapped)?;
        let key = new.new_row_key(table.name, self.id)?;
        let mut columns = Vec::new();
        for (column, sealed) in table.columns.iter().zip(self.columns) {
            let place = (table.name, column.name);
            let index = |plain: &str| {
                let ignored = column.index?.ignored;
                Some(indexes.index_text(tenant.uuid(), place, plain, ignored))
            };
            let resealed = sealed.map(|sealed| crypto::reseal(place, &sealed, (&old, &key), index)).transpose()?;
            let (sealed, index) = resealed.unzip();
            columns.push(sealed);
            if column.index.is_some() {
                columns.push(index.flatten().map(|index| index.bytes().to_vec()));
            }
        }
        Ok(ResealedRow { table, key, columns })
    }
}

impl ResealedRow<'_> {
    async fn store(
        self,
        connection: &mut PgConnection,
        tenant: TenantId,
        index_key: Option<i32>,
    ) -> Result<(), DbError> {
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.table.update)))
            .bind(tenant.uuid())
            .bind(self.key.row())
            .bind(self.key.data_key_version())
            .bind(self.key.wrapped())
            .bind(index_key);
        let query = self.columns.into_iter().fold(query, sqlx::query::Query::bind);
        DbError::unless(query.execute(connection).await?.rows_affected() == 1)
    }
}
