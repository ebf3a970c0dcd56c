//! What keeps the keys of sealed fields young: not an operation, so without a permit. Operators run it from the command
//! line, with the master keys and the logins of the service.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    Database, Position, StoreError,
    customers::{CustomerRow, TABLE, select_customers},
    keyring::DataKeyState,
};
use crate::{
    crypto::{BlindIndex, DataKey, IndexKeys, RowKey, SealError, Sealable, Sealed},
    domain::{Address, BankAccount, Customer, Phone, TaxId, TenantId},
};

/// Rows that are resealed in one transaction, and so locked together, for some milliseconds. Those that were stored since
/// they were found are too.
const BATCH: i64 = 50;

/// Customers that are looked at for one batch at most, without a lock.
const PAGE: i64 = 5_000;

/// Where a batch may be, and what it takes.
struct Page {
    /// Which data keys customers have who are to be sealed anew.
    data_keys: BTreeSet<i32>,
    /// The last customer; `None` if there are no more.
    end: Option<Position>,
}

/// One batch of a pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch {
    /// Customers that were sealed anew.
    pub resealed: usize,
    /// How many of those had an older data key, and did not just lack an index entry.
    pub late: usize,
    /// Customers that do not open, and were left as they are. Each, or its data key, is an event.
    pub unreadable: usize,
    /// Where the next batch begins; `None` if this was the last.
    pub next: Option<Position>,
}

/// How many customers of a tenant need a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The key's version.
    pub version: i32,
    /// Customers.
    pub customers: i64,
}

impl Database {
    /// Tenants that have data keys.
    pub async fn tenants_with_keys(&self) -> Result<Vec<TenantId>, StoreError> {
        self.keyring.tenants().await
    }

    /// Makes a further data key for a tenant and gives its version. New customers get it within `APP_KEYS__REFRESH_MS`.
    pub async fn add_data_key(&self, tenant: TenantId) -> Result<i32, StoreError> {
        self.keyring.add_next(tenant).await
    }

    /// How long after a new data key customers may get the one before: as long as that is taken for the newest, and what was
    /// sealed then waits for a connection and is stored. If the other replicas have the same settings
    /// and wait for no vault; `keys status` says what is left.
    #[must_use]
    pub fn settles_in(&self) -> Duration {
        self.keyring.refresh.saturating_add(self.writer.longest_statement())
    }

    /// The data keys of a tenant, by version.
    pub async fn data_keys(&self, tenant: TenantId) -> Result<Vec<DataKeyState>, StoreError> {
        self.keyring.versions(tenant).await
    }

    /// How many customers need each data key, and how many each key of blind indexes.
    pub async fn key_uses(&self, tenant: TenantId) -> Result<(Vec<Use>, Vec<Use>), StoreError> {
        let mut tx = self.reader.begin("begin read only", tenant).await?;
        // Of millions it takes a while, and nobody waits for it.
        sqlx::query("set local statement_timeout = '1min'").execute(&mut *tx).await?;
        let data_keys = sqlx::query_as!(
            Use,
            r#"select data_key as version, count(*) as "customers!" from customer_keys where tenant_id = $1
               group by data_key order by data_key"#,
            tenant.uuid()
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut index_keys = Vec::new();
        for version in self.keyring.index_versions().await? {
            let (from, to) = BlindIndex::range(version).ok_or(StoreError::Inconsistent)?;
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
            index_keys.push(Use { version, customers });
        }
        Ok((data_keys, index_keys))
    }

    /// Seals up to fifty customers anew, those that do not have the tenant's newest data key and the first index key yet,
    /// each with a new key of its own. All of a batch or nothing; two at once do nothing twice; who reads meanwhile reads
    /// what was there before, and who writes waits for the batch.
    pub async fn reseal_batch(&self, tenant: TenantId, from: Position) -> Result<Batch, StoreError> {
        let (newest, indexes) = (self.keyring.newest(tenant).await?, self.keyring.indexes());
        let index_key = indexes.primary().to_be_bytes();
        let page = self.page(tenant, from, (newest.version(), &index_key)).await?;
        // Before anything is locked: who keeps a master key may take time.
        let old = self.opened(tenant, &page).await?;
        let mut batch = Batch { next: page.end, ..Batch::default() };
        if old.is_empty() {
            return Ok(batch);
        }
        let mut tx = self.writer.begin("begin", tenant).await?;
        let until = page.end.unwrap_or(Position::end());
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
            PAGE
        )
        .fetch_all(&mut *tx)
        .await?;
        for row in rows {
            // Who was stored since, with yet another key, goes with the next pass.
            let Some(key) = old.get(&row.data_key) else { continue };
            let late = row.data_key < newest.version();
            match key.as_ref().map(|key| resealed(row, tenant, key, (&newest, &indexes))) {
                Some(Ok(customer)) => {
                    store(&mut tx, &customer).await?;
                    batch.resealed += 1;
                    batch.late += usize::from(late);
                }
                None | Some(Err(StoreError::Sealed(_))) => batch.unreadable += 1,
                Some(Err(error)) => return Err(error),
            }
        }
        tx.commit().await?;
        Ok(batch)
    }

    /// What there is to do among the next customers. Of so many at most: a tenant may have millions, and nothing left to do.
    async fn page(
        &self,
        tenant: TenantId,
        from: Position,
        (newest, index_key): (i32, &[u8]),
    ) -> Result<Page, StoreError> {
        // Of one snapshot: else the end could be beyond what was looked at.
        let mut tx = self.writer.begin("begin isolation level repeatable read read only", tenant).await?;
        let found = sqlx::query!(
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
            PAGE,
            BATCH
        );
        let found = found.fetch_all(&mut *tx).await?;
        let last = found.last().map(|row| Position { at: row.created_at, id: row.id });
        let full = i64::try_from(found.len()).is_ok_and(|found| found == BATCH);
        let data_keys = found.into_iter().map(|row| row.data_key).collect();
        if full {
            return Ok(Page { data_keys, end: last });
        }
        let end = sqlx::query_as!(
            Position,
            "select created_at as at, id from customers
             where tenant_id = $1 and erased_at is null and (created_at, id) < ($2, $3)
             order by created_at desc, id desc offset $4 limit 1",
            tenant.uuid(),
            from.time(),
            from.id,
            PAGE - 1
        );
        Ok(Page { data_keys, end: end.fetch_optional(&mut *tx).await? })
    }

    /// The data keys of a page; `None` in place of one that does not open.
    async fn opened(&self, tenant: TenantId, page: &Page) -> Result<BTreeMap<i32, Option<Arc<DataKey>>>, StoreError> {
        let mut opened = BTreeMap::new();
        for version in &page.data_keys {
            match self.keyring.fetch(tenant, *version).await {
                Ok(key) => drop(opened.insert(*version, Some(key))),
                Err(StoreError::MasterKey(error)) if error.is_of_one_key() => drop(opened.insert(*version, None)),
                // Somebody else has sealed those customers anew by now.
                Err(StoreError::KeyDropped) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(opened)
    }
}

/// Sealed with other keys. Also of a tenant that got back the data keys which had been destroyed, when its index entries are gone.
fn resealed(
    row: CustomerRow,
    tenant: TenantId,
    old: &DataKey,
    (new, indexes): (&DataKey, &IndexKeys),
) -> Result<Customer, StoreError> {
    let email_index = Some(row.email_index.unwrap_or_default());
    let customer = CustomerRow { email_index, ..row }.with_data_key(old, tenant)?;
    Ok(resealed_customer(customer, new, indexes)?)
}

/// The customer with a new key, everything sealed with that, and indexes by the first index key.
fn resealed_customer(mut customer: Customer, data_key: &DataKey, indexes: &IndexKeys) -> Result<Customer, SealError> {
    let new = data_key.new_row_key(TABLE, customer.id.uuid())?;
    let (data, old, tenant) = (&mut customer.data, &customer.key, customer.tenant.uuid());
    data.email_index = indexes.index_sealed(tenant, &data.email, old)?;
    data.tax_id_index =
        data.tax_id.as_ref().map(|field: &Sealed<TaxId>| indexes.index_sealed(tenant, field, old)).transpose()?;
    data.email = data.email.resealed(old, &new)?;
    data.phone = reseal::<Phone>(data.phone.as_ref(), old, &new)?;
    data.tax_id = reseal::<TaxId>(data.tax_id.as_ref(), old, &new)?;
    data.bank_account = reseal::<BankAccount>(data.bank_account.as_ref(), old, &new)?;
    data.address = reseal::<Address>(data.address.as_ref(), old, &new)?;
    customer.key = new;
    Ok(customer)
}

fn reseal<T: Sealable>(field: Option<&Sealed<T>>, old: &RowKey, new: &RowKey) -> Result<Option<Sealed<T>>, SealError> {
    field.map(|field| field.resealed(old, new)).transpose()
}

async fn store(connection: &mut sqlx::PgConnection, customer: &Customer) -> Result<(), StoreError> {
    let data = &customer.data;
    let done = sqlx::query!(
        "with k as (update customer_keys set data_key = $10, wrapped = $11::bytea
                    where tenant_id = $1 and customer_id = $2)
         update customers set email = $3::bytea, phone = $4::bytea, tax_id = $5::bytea, bank_account = $6::bytea,
                              address = $7::bytea, email_index = $8::bytea, tax_id_index = $9::bytea
         where tenant_id = $1 and id = $2",
        customer.tenant.uuid(),
        customer.id.uuid(),
        data.email.bytes(),
        data.phone.as_ref().map(Sealed::bytes),
        data.tax_id.as_ref().map(Sealed::bytes),
        data.bank_account.as_ref().map(Sealed::bytes),
        data.address.as_ref().map(Sealed::bytes),
        data.email_index.bytes(),
        data.tax_id_index.as_ref().map(BlindIndex::bytes),
        customer.key.data_key(),
        customer.key.wrapped()
    )
    .execute(connection)
    .await?;
    StoreError::unless(done.rows_affected() == 1)
}
