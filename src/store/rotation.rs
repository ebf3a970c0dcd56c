//! What keeps the keys of sealed fields young: not an operation, so without a permit. Operators run it from the command
//! line, with the master keys and the logins of the service.

use std::time::Duration;

use super::{
    Database, Position, StoreError,
    customers::{CustomerRow, TABLE, select_customers},
    keyring::{DataKeyState, NEWEST_FOR},
};
use crate::{
    crypto::{BlindIndex, DataKey, IndexKeys, RowKey, SealError, Sealable, Sealed},
    domain::{Address, BankAccount, Customer, Phone, TaxId, TenantId},
};

/// Rows that are resealed in one transaction, and so locked together, for some milliseconds.
const BATCH: i64 = 50;

/// One batch of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Customers that were sealed anew.
    pub resealed: usize,
    /// Customers that do not open, and were left as they are. Each is an event.
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

    /// Makes a further data key for a tenant and gives its version. New customers get it within five seconds.
    pub async fn add_data_key(&self, tenant: TenantId) -> Result<i32, StoreError> {
        self.keyring.add_next(tenant).await
    }

    /// How long after a new data key customers may get the one before: as long as that is taken for the newest, and what was
    /// sealed then waits for a connection and is stored. If the other replicas have the same settings
    /// and wait for no vault; `keys status` says what is left.
    #[must_use]
    pub fn settles_in(&self) -> Duration {
        NEWEST_FOR.saturating_add(self.writer.longest_statement())
    }

    /// The data keys of a tenant, by version.
    pub async fn data_keys(&self, tenant: TenantId) -> Result<Vec<DataKeyState>, StoreError> {
        self.keyring.versions(tenant).await
    }

    /// How many customers need each data key, and how many each key of blind indexes.
    pub async fn key_uses(&self, tenant: TenantId) -> Result<(Vec<Use>, Vec<Use>), StoreError> {
        let mut tx = self.reader.begin("begin read only", tenant).await?;
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
        let data_key = self.keyring.newest(tenant).await?;
        // All that may be needed, before anything is locked: who keeps a master key may take time.
        let data_keys = self.keyring.all_that_open(tenant).await?;
        let indexes = self.keyring.indexes();
        let index_key = indexes.primary().to_be_bytes();
        let mut tx = self.writer.begin("begin", tenant).await?;
        let rows = select_customers!(
            "customers join customer_keys k (of_tenant, customer_id, data_key, wrapped_key)
                            on k.of_tenant = tenant_id and k.customer_id = id
             where tenant_id = $1 and erased_at is null and (created_at, id) < ($2, $3)
               and (data_key < $5 or substring(email_index from 1 for 2) <> $6
                                  or substring(tax_id_index from 1 for 2) <> $6)
             order by created_at desc, id desc limit $4 for no key update of customers, k",
            tenant.uuid(),
            from.time(),
            from.id,
            BATCH,
            data_key.version(),
            index_key.as_slice()
        )
        .fetch_all(&mut *tx)
        .await?;
        let last = rows.last().map(|row: &CustomerRow| Position { at: row.created_at, id: row.id });
        let full = i64::try_from(rows.len()).is_ok_and(|rows| rows == BATCH);
        let (mut resealed, mut unreadable) = (0, 0);
        for row in rows {
            // One that was made since is another rotation's, which comes this way too.
            if row.data_key > data_key.version() {
                continue;
            }
            let Some(old) = data_keys.get(&row.data_key) else {
                unreadable += 1;
                continue;
            };
            let customer = row.with_data_key(old, tenant);
            match customer.and_then(|customer| Ok(resealed_customer(customer, &data_key, &indexes)?)) {
                Ok(customer) => {
                    store(&mut tx, &customer).await?;
                    resealed += 1;
                }
                Err(StoreError::Sealed(_)) => unreadable += 1,
                Err(error) => return Err(error),
            }
        }
        tx.commit().await?;
        Ok(Batch { resealed, unreadable, next: last.filter(|_| full) })
    }
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
