//! Key rotation: adds data keys, and re-encrypts customers in batches (CRYPTO-05).
//!
//! In: a tenant and a position in its row keys. Out: one batch that has the newest data key and the
//! primary index key, in one transaction. `ops::keys` calls it until no customer is left. Requests
//! are served meanwhile; a write to a customer waits for the batch that holds its row.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use super::Maintenance;
use crate::{
    crypto::{BlindIndex, DataKey, IndexKeys, Sealed},
    db::{DataKeyState, DbError},
    model::TenantId,
    store::customers::{CustomerRecord, CustomerRow, SealedFields},
};

/// Customers per transaction. Their rows are locked together for some milliseconds.
const BATCH_SIZE: i64 = 50;

/// A customer that lacks the newest data key or the primary index key.
struct OutdatedRow {
    id: Uuid,
    /// The version of its data key.
    data_key: i32,
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
    /// The last customer of the batch. `None` if there is no next batch.
    pub next: Option<Uuid>,
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
            r#"select data_key as version, count(*) as "customers!" from palisade.row_keys where tenant_id = $1
               group by data_key order by data_key"#,
            tenant.uuid()
        )
        .fetch_all(&mut *tx)
        .await?;
        let index_keys = sqlx::query_as!(
            KeyUse,
            r#"select version as "version!",
                      (select count(*) from palisade.row_keys k
                       where k.tenant_id = $1 and k.index_key = version) as "customers!"
               from unnest($2::integer[]) version"#,
            tenant.uuid(),
            &self.0.keyring.index_versions().await?
        )
        .fetch_all(&mut *tx)
        .await?;
        Ok((data_keys, index_keys))
    }

    /// Re-encrypts the next customers after `after` that lack the newest data key or the primary
    /// index key, up to fifty, each with a new row key.
    ///
    /// The batch is one transaction. Concurrent batches do not process a customer twice. Readers
    /// see the previous version of a row, writers wait for the row lock.
    pub async fn reseal_batch(&self, tenant: TenantId, after: Uuid) -> Result<ResealedBatch, DbError> {
        let newest = self.0.keyring.newest(tenant).await?;
        let indexes = self.0.keyring.indexes();
        let index_key = i32::from(indexes.primary());
        let found = self.find_batch(tenant, after, (newest.version(), index_key)).await?;
        let is_full = i64::try_from(found.len()).is_ok_and(|found| found == BATCH_SIZE);
        let next = found.last().map(|row| row.id).filter(|_| is_full);
        let mut batch = ResealedBatch { next, ..ResealedBatch::default() };
        // Before any row is locked: a vault may be slow.
        let old_keys = self.unwrap_data_keys(tenant, found.iter().map(|row| row.data_key).collect()).await?;
        if old_keys.is_empty() {
            return Ok(batch);
        }
        let ids: Vec<Uuid> = found.iter().map(|row| row.id).collect();
        let mut tx = self.0.writer.begin("begin", tenant).await?;
        // Locks the row of each customer first, then its key.
        let rows = sqlx::query_as!(
            CustomerRow,
            r#"select id as "id!", name as "name!", email as "email!", phone, tax_id,
                      bank_account, address, email_index, tax_id_index, index_key, data_key as "data_key!",
                      wrapped_key as "wrapped_key!", created_by as "created_by!", created_at as "created_at!",
                      updated_at as "updated_at!"
               from customers join palisade.row_keys k (of_tenant, sealed_table, row_id, data_key, wrapped_key, index_key)
                            on k.of_tenant = tenant_id and k.sealed_table = 'customers' and k.row_id = id
             where tenant_id = $1 and id = any ($2) and erased_at is null
               and (data_key < $3 or data_key = $3 and index_key is distinct from $4)
             order by id for no key update of customers, k"#,
            tenant.uuid(),
            &ids,
            newest.version(),
            index_key
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

    /// Finds the customers of the next batch, by the indexes of `palisade.row_keys`: a tenant may
    /// have millions, and all of them up to date.
    async fn find_batch(
        &self,
        tenant: TenantId,
        after: Uuid,
        (newest, index_key): (i32, i32),
    ) -> Result<Vec<OutdatedRow>, DbError> {
        let mut data_keys = self.0.keyring.data_key_versions(tenant).await?;
        data_keys.retain(|version| *version < newest);
        let mut index_keys = self.0.keyring.index_versions().await?;
        index_keys.retain(|version| *version != index_key);
        let mut tx = self.0.writer.begin("begin read only", tenant).await?;
        let found = sqlx::query_as!(
            OutdatedRow,
            // The last part: customers of a tenant whose destroyed data keys were restored.
            r#"select id as "id!", data_key as "data_key!" from (
                   select f.* from unnest($3::integer[]) old (version), lateral (
                       select k.row_id, k.data_key from palisade.row_keys k
                       where k.tenant_id = $1 and k.sealed_table = 'customers' and k.data_key = old.version
                         and k.row_id > $2 order by k.row_id limit $6) f
                   union
                   select f.* from unnest($4::integer[]) old (version), lateral (
                       select k.row_id, k.data_key from palisade.row_keys k
                       where k.tenant_id = $1 and k.sealed_table = 'customers' and k.index_key = old.version
                         and k.row_id > $2 and k.data_key <= $5 order by k.row_id limit $6) f
                   union
                   select k.row_id, k.data_key from palisade.row_keys k
                   where k.tenant_id = $1 and k.sealed_table = 'customers' and k.index_key is null
                     and k.row_id > $2 and k.data_key <= $5
               ) outdated (id, data_key)
               order by id limit $6"#,
            tenant.uuid(),
            after,
            &data_keys,
            &index_keys,
            newest,
            BATCH_SIZE
        );
        Ok(found.fetch_all(&mut *tx).await?)
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
    let index_key = Some(row.index_key.unwrap_or_default());
    let customer = CustomerRow { email_index, index_key, ..row }.open_with(old, tenant)?;
    Ok(customer.reseal(new, indexes)?)
}

async fn update_row(connection: &mut sqlx::PgConnection, customer: &CustomerRecord) -> Result<(), DbError> {
    // The name is not sealed, so it stays.
    let SealedFields { name: _, email, phone, tax_id, bank_account, address, email_index, tax_id_index, index_key } =
        &customer.fields;
    let done = sqlx::query!(
        "with k as (update palisade.row_keys set data_key = $10, wrapped = $11::bytea, index_key = $12
                    where tenant_id = $1 and sealed_table = 'customers' and row_id = $2)
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
        customer.key.wrapped(),
        i32::from(*index_key)
    )
    .execute(connection)
    .await?;
    DbError::unless(done.rows_affected() == 1)
}
