//! Key rotation: adds data keys, and re-encrypts customers in batches (CRYPTO-05).
//!
//! In: a tenant and a position in its customers. Out: one batch that has the newest data key and
//! the primary index key, in one transaction. `ops::keys` calls it until no customer is left.
//! Requests are served meanwhile; a write to a customer waits for the batch that holds its row.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::Maintenance;
use crate::{
    crypto::{BlindIndex, DataKey, IndexKeys, Sealed},
    db::{DataKeyState, DbError},
    domain::TenantId,
    store::{
        CustomerRecord, Position, SealedFields,
        customers::{CustomerRow, select_customers},
    },
};

/// Customers per transaction. Their rows are locked together for some milliseconds. Customers that
/// were stored after the scan are added.
const BATCH_SIZE: i64 = 50;

/// Maximum number of customers that the scan for one batch reads, without locks.
const SCAN_LIMIT: i64 = 5_000;

/// The result of the scan for a batch.
struct BatchRange {
    /// Versions of the data keys that customers in the range have.
    data_keys: BTreeSet<i32>,
    /// The last customer of the range. `None` if the range extends to the end.
    end: Option<Position>,
}

/// Result of one batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResealedBatch {
    /// Number of customers that were re-encrypted.
    pub resealed: usize,
    /// How many of those had an older data key. The others lacked an index under the primary key.
    pub had_older_key: usize,
    /// Number of customers that do not decrypt and were left unchanged. Each is reported as an
    /// event, or its data key is.
    pub unreadable: usize,
    /// Start of the next batch. `None` after the last one.
    pub next: Option<Position>,
}

/// How many customers of a tenant need a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// Version of the data key or index key.
    pub version: i32,
    /// Number of customers.
    pub customers: i64,
}

impl Maintenance {
    /// Lists the tenants that have data keys.
    pub async fn tenants_with_keys(&self) -> Result<Vec<TenantId>, DbError> {
        self.0.keyring.tenants().await
    }

    /// Adds a data key for a tenant. Returns its version. New customers get it on every replica
    /// within `APP_KEYS__REFRESH_MS`.
    pub async fn add_data_key(&self, tenant: TenantId) -> Result<i32, DbError> {
        self.0.keyring.add_next(tenant).await
    }

    /// How long customers may still get the previous data key after a new one was added.
    ///
    /// A replica caches the newest data key, and then needs up to the longest statement to store
    /// what it sealed. Holds if all replicas have the same settings and no vault is slow; `keys
    /// status` shows what is left.
    #[must_use]
    pub fn propagation_delay(&self) -> Duration {
        self.0.keyring.newest_ttl.saturating_add(self.0.writer.longest_statement())
    }

    /// Lists the data keys of a tenant, by version.
    pub async fn data_keys(&self, tenant: TenantId) -> Result<Vec<DataKeyState>, DbError> {
        self.0.keyring.versions(tenant).await
    }

    /// Counts the customers that need each data key, and those that need each index key.
    pub async fn key_uses(&self, tenant: TenantId) -> Result<(Vec<KeyUse>, Vec<KeyUse>), DbError> {
        let mut tx = self.0.reader.begin("begin read only", tenant).await?;
        // Counting millions of rows takes long, and blocks nothing.
        sqlx::query("set local statement_timeout = '1min'").execute(&mut *tx).await?;
        let data_keys = sqlx::query_as!(
            KeyUse,
            r#"select data_key as version, count(*) as "customers!" from customer_keys where tenant_id = $1
               group by data_key order by data_key"#,
            tenant.uuid()
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut index_keys = Vec::new();
        for version in self.0.keyring.index_versions().await? {
            let (from, to) = BlindIndex::range(version).ok_or(DbError::Inconsistent)?;
            let customers = sqlx::query_scalar!(
                r#"select count(*) as "customers!" from (
                       select id from customers
                       where tenant_id = $1 and erased_at is null and email_index >= $2 and email_index < $3
                       union
                       select id from customers
                       where tenant_id = $1 and erased_at is null and tax_id_index >= $2 and tax_id_index < $3
                   ) c"#,
                tenant.uuid(),
                from,
                to
            )
            .fetch_one(&mut *tx)
            .await?;
            index_keys.push(KeyUse { version, customers });
        }
        Ok((data_keys, index_keys))
    }

    /// Re-encrypts the next customers that lack the newest data key or the primary index key, about
    /// fifty, each with a new row key.
    ///
    /// The batch is one transaction. Concurrent batches do not process a customer twice. Readers
    /// see the previous version of a row, writers wait for the row lock.
    pub async fn reseal_batch(&self, tenant: TenantId, from: Position) -> Result<ResealedBatch, DbError> {
        let newest = self.0.keyring.newest(tenant).await?;
        let indexes = self.0.keyring.indexes();
        let index_key = indexes.primary().to_be_bytes();
        let range = self.find_batch(tenant, from, (newest.version(), &index_key)).await?;
        // Before any row is locked: a vault may be slow.
        let old_keys = self.unwrap_data_keys(tenant, &range).await?;
        let mut batch = ResealedBatch { next: range.end, ..ResealedBatch::default() };
        if old_keys.is_empty() {
            return Ok(batch);
        }
        let mut tx = self.0.writer.begin("begin", tenant).await?;
        let until = range.end.unwrap_or(Position::end());
        let rows = select_customers!(
            "customers join customer_keys k (of_tenant, customer_id, data_key, wrapped_key)
                            on k.of_tenant = tenant_id and k.customer_id = id
             where tenant_id = $1 and erased_at is null and (created_at, id) < ($2, $3) and (created_at, id) >= ($6, $7)
               and (data_key < $4 or data_key = $4 and (substring(email_index from 1 for 2) is distinct from $5
                                                        or substring(tax_id_index from 1 for 2) <> $5))
             order by created_at desc, id desc limit $8 for no key update of customers, k",
            tenant.uuid(),
            from.time(),
            from.id,
            newest.version(),
            index_key.as_slice(),
            until.time(),
            until.id,
            SCAN_LIMIT
        )
        .fetch_all(&mut *tx)
        .await?;
        for row in rows {
            // The row got yet another data key after the scan. The next pass finds it.
            let Some(key) = old_keys.get(&row.data_key) else { continue };
            let had_older_key = row.data_key < newest.version();
            match key.as_ref().map(|key| reseal_row(row, tenant, key, (&newest, &indexes))) {
                Some(Ok(customer)) => {
                    update_row(&mut tx, &customer).await?;
                    batch.resealed += 1;
                    batch.had_older_key += usize::from(had_older_key);
                }
                None | Some(Err(DbError::Sealed(_))) => batch.unreadable += 1,
                Some(Err(error)) => return Err(error),
            }
        }
        tx.commit().await?;
        Ok(batch)
    }

    /// Finds the range of the next batch. Scans a limited number of customers: a tenant may have
    /// millions, and all of them up to date.
    async fn find_batch(
        &self,
        tenant: TenantId,
        from: Position,
        (newest, index_key): (i32, &[u8]),
    ) -> Result<BatchRange, DbError> {
        // Snapshot isolation: otherwise the end could lie beyond the scanned rows.
        let mut tx = self.0.writer.begin("begin isolation level repeatable read read only", tenant).await?;
        let scan = sqlx::query!(
            "select p.created_at, p.id, p.data_key from (
                 select c.created_at, c.id, k.data_key, c.email_index, c.tax_id_index
                 from customers c join customer_keys k on k.tenant_id = c.tenant_id and k.customer_id = c.id
                 where c.tenant_id = $1 and c.erased_at is null and (c.created_at, c.id) < ($2, $3)
                 order by c.created_at desc, c.id desc limit $6
             ) p
             where p.data_key < $4 or p.data_key = $4 and (substring(p.email_index from 1 for 2) is distinct from $5
                                                           or substring(p.tax_id_index from 1 for 2) <> $5)
             order by p.created_at desc, p.id desc limit $7",
            tenant.uuid(),
            from.time(),
            from.id,
            newest,
            index_key,
            SCAN_LIMIT,
            BATCH_SIZE
        );
        let found = scan.fetch_all(&mut *tx).await?;
        let last = found.last().map(|row| Position { at: row.created_at, id: row.id });
        let is_full = i64::try_from(found.len()).is_ok_and(|found| found == BATCH_SIZE);
        let data_keys = found.into_iter().map(|row| row.data_key).collect();
        if is_full {
            return Ok(BatchRange { data_keys, end: last });
        }
        let end = sqlx::query_as!(
            Position,
            "select created_at as at, id from customers
             where tenant_id = $1 and erased_at is null and (created_at, id) < ($2, $3)
             order by created_at desc, id desc offset $4 limit 1",
            tenant.uuid(),
            from.time(),
            from.id,
            SCAN_LIMIT - 1
        );
        Ok(BatchRange { data_keys, end: end.fetch_optional(&mut *tx).await? })
    }

    /// Unwraps the data keys of a range. `None` stands for a data key that cannot be unwrapped.
    async fn unwrap_data_keys(
        &self,
        tenant: TenantId,
        range: &BatchRange,
    ) -> Result<BTreeMap<i32, Option<Arc<DataKey>>>, DbError> {
        let mut data_keys = BTreeMap::new();
        for version in &range.data_keys {
            match self.0.keyring.fetch(tenant, *version).await {
                Ok(key) => drop(data_keys.insert(*version, Some(key))),
                Err(DbError::MasterKey(error)) if error.concerns_one_data_key() => {
                    drop(data_keys.insert(*version, None));
                }
                // Another command has re-encrypted those customers in between.
                Err(DbError::KeyDropped) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(data_keys)
    }
}

/// Re-encrypts a row with a new row key. Also accepts a row without indexes: after `keys destroy`,
/// the data keys of a tenant may have been restored from a backup.
fn reseal_row(
    row: CustomerRow,
    tenant: TenantId,
    old: &DataKey,
    (new, indexes): (&DataKey, &IndexKeys),
) -> Result<CustomerRecord, DbError> {
    let email_index = Some(row.email_index.unwrap_or_default());
    let customer = CustomerRow { email_index, ..row }.open_with(old, tenant)?;
    Ok(customer.reseal(new, indexes)?)
}

async fn update_row(connection: &mut sqlx::PgConnection, customer: &CustomerRecord) -> Result<(), DbError> {
    // The name is not sealed, so it stays.
    let SealedFields { name: _, email, phone, tax_id, bank_account, address, email_index, tax_id_index } =
        &customer.fields;
    let done = sqlx::query!(
        "with k as (update customer_keys set data_key = $10, wrapped = $11::bytea
                    where tenant_id = $1 and customer_id = $2)
         update customers set email = $3::bytea, phone = $4::bytea, tax_id = $5::bytea, bank_account = $6::bytea,
                              address = $7::bytea, email_index = $8::bytea, tax_id_index = $9::bytea
         where tenant_id = $1 and id = $2",
        customer.tenant.uuid(),
        customer.id.uuid(),
        email.bytes(),
        phone.as_ref().map(Sealed::bytes),
        tax_id.as_ref().map(Sealed::bytes),
        bank_account.as_ref().map(Sealed::bytes),
        address.as_ref().map(Sealed::bytes),
        email_index.bytes(),
        tax_id_index.as_ref().map(BlindIndex::bytes),
        customer.key.data_key_version(),
        customer.key.wrapped()
    )
    .execute(connection)
    .await?;
    DbError::unless(done.rows_affected() == 1)
}
