use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Answer, Database, KeyedRequest, Position, ReadTx, Statements, StoreError, audit::Entry, keyring::Keyring,
    keyring::open_row_key, position::stored, traced::Traced,
};
use crate::{
    authz::{
        Action as _, Permit,
        actions::{CreateCustomer, GetCustomer, ListCustomers},
    },
    crypto::{BlindIndex, DataKey, RowKey, SealError, Sealed},
    domain::{Customer, CustomerId, Email, SealedData, TaxId, TenantId},
};

mod changing;

pub(super) const TABLE: &str = "customers";

/// A customer and its key, sealed.
pub(super) struct CustomerRow {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) email: Vec<u8>,
    pub(super) phone: Option<Vec<u8>>,
    pub(super) tax_id: Option<Vec<u8>>,
    pub(super) bank_account: Option<Vec<u8>>,
    pub(super) address: Option<Vec<u8>>,
    /// A customer of a tenant whose data keys are destroyed has none.
    pub(super) email_index: Option<Vec<u8>>,
    pub(super) tax_id_index: Option<Vec<u8>>,
    pub(super) data_key: i32,
    pub(super) wrapped_key: Vec<u8>,
    pub(super) created_by: String,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

macro_rules! select_customers {
    ($from:tt, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            CustomerRow,
            r#"select id as "id!", name as "name!", email as "email!", phone, tax_id,
                      bank_account, address, email_index, tax_id_index, data_key as "data_key!",
                      wrapped_key as "wrapped_key!", created_by as "created_by!", created_at as "created_at!",
                      updated_at as "updated_at!"
               from "# + $from,
            $($argument),+
        )
    };
}
pub(super) use select_customers;

impl CustomerRow {
    /// Opens the key and nothing else. The tenant is the caller's, whatever the row says: that of another does not open,
    /// though a statement found it (CRYPTO-03).
    pub(super) async fn with_key(self, keyring: &Keyring, tenant: TenantId) -> Result<Customer, StoreError> {
        let data_key = keyring.fetch(tenant, self.data_key).await?;
        self.with_data_key(&data_key, tenant)
    }

    /// The same by the data key of its version, which waits for nobody.
    pub(super) fn with_data_key(self, data_key: &DataKey, tenant: TenantId) -> Result<Customer, StoreError> {
        let email_index = self.email_index.ok_or(StoreError::KeyDestroyed)?;
        let key = open_row_key(data_key, tenant, (TABLE, self.id), self.wrapped_key)?;
        Ok(Customer {
            id: CustomerId::from_uuid(self.id),
            tenant,
            data: SealedData {
                name: stored(&self.name)?,
                email: Sealed::from_stored(self.email),
                phone: self.phone.map(Sealed::from_stored),
                tax_id: self.tax_id.map(Sealed::from_stored),
                bank_account: self.bank_account.map(Sealed::from_stored),
                address: self.address.map(Sealed::from_stored),
                email_index: BlindIndex::from_stored(email_index),
                tax_id_index: self.tax_id_index.map(BlindIndex::from_stored),
            },
            key,
            created_by: self.created_by,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// By what customers are found: the whole of a field, and nothing less.
#[derive(Debug)]
pub enum CustomerFilter {
    /// All of them.
    None,
    /// Those with this e-mail address.
    Email(Email),
    /// Those with this tax identifier, whatever its hyphens.
    TaxId(TaxId),
}

impl CustomerFilter {
    /// An error if a customer was found by a value that it does not have.
    fn check(&self, found: &Customer) -> Result<(), SealError> {
        match (self, &found.data.tax_id) {
            (Self::None, _) => Ok(()),
            (Self::Email(email), _) => found.data.email.check_is(&found.key, email),
            (Self::TaxId(tax_id), Some(sealed)) => sealed.check_is(&found.key, tax_id),
            (Self::TaxId(_), None) => Err(SealError),
        }
    }
}

/// The customer that was asked for: another's row does not open as its.
async fn opened(
    row: Option<CustomerRow>,
    keyring: &Keyring,
    (tenant, id): (TenantId, CustomerId),
) -> Result<Option<Customer>, StoreError> {
    match row {
        Some(row) => Ok(Some(CustomerRow { id: id.uuid(), ..row }.with_key(keyring, tenant).await?)),
        None => Ok(None),
    }
}

impl ReadTx<ListCustomers> {
    /// At most `limit` customers after `from`, newest first. The transaction ends before keys are opened: whoever keeps a
    /// master key may take time for that, and no connection waits for it.
    pub async fn customers(
        mut self,
        from: Position,
        filter: &CustomerFilter,
        limit: i64,
    ) -> Result<Vec<Customer>, StoreError> {
        let of = self.tenant();
        let tenant = of.uuid();
        let time = from.time();
        // One statement per filter, so that each has a plan of its own, by its own index.
        let mut rows = match filter {
            CustomerFilter::None => {
                select_customers!(
                    "customer_documents where tenant_id = $1 and (created_at, id) < ($2, $3)
                     order by created_at desc, id desc limit $4",
                    tenant,
                    time,
                    from.id,
                    limit
                )
                .fetch_all(self.connection())
                .await?
            }
            CustomerFilter::Email(email) => {
                let mut rows = Vec::new();
                for index in self.keyring().indexes().candidates(tenant, email) {
                    let found = select_customers!(
                        "customer_documents where tenant_id = $1 and (created_at, id) < ($2, $3) and email_index = $5
                         order by created_at desc, id desc limit $4",
                        tenant,
                        time,
                        from.id,
                        limit,
                        index
                    );
                    rows.extend(found.fetch_all(self.connection()).await?);
                }
                rows
            }
            CustomerFilter::TaxId(tax_id) => {
                let mut rows = Vec::new();
                for index in self.keyring().indexes().candidates(tenant, tax_id) {
                    let found = select_customers!(
                        "customer_documents where tenant_id = $1 and (created_at, id) < ($2, $3) and tax_id_index = $5
                         order by created_at desc, id desc limit $4",
                        tenant,
                        time,
                        from.id,
                        limit,
                        index
                    );
                    rows.extend(found.fetch_all(self.connection()).await?);
                }
                rows
            }
        };
        // While keys of indexes change there is a page under each.
        rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.created_at, row.id)));
        rows.truncate(usize::try_from(limit).unwrap_or(0));
        let keyring = self.end();
        let mut customers = Vec::with_capacity(rows.len());
        for row in rows {
            let customer = row.with_key(&keyring, of).await?;
            filter.check(&customer)?;
            customers.push(customer);
        }
        Ok(customers)
    }
}

impl Database {
    /// The customer of this id, read in one message.
    pub async fn customer(&self, permit: &Permit<GetCustomer>, id: CustomerId) -> Result<Option<Customer>, StoreError> {
        let row = select_customers!("read_customer($1, $2)", permit.tenant().uuid(), id.uuid())
            .fetch_optional(Traced(&mut *self.reader.connection().await?))
            .await?;
        opened(row, &self.keyring, (permit.tenant(), id)).await
    }

    /// A key for a customer to be, under the tenant's newest data key.
    pub async fn new_customer_key(
        &self,
        permit: &Permit<CreateCustomer>,
        id: CustomerId,
    ) -> Result<RowKey, StoreError> {
        let data_key = self.keyring.newest(permit.tenant()).await?;
        Ok(data_key.new_row_key(TABLE, id.uuid())?)
    }
}

impl Statements<CreateCustomer> {
    /// Stores a new customer, and the answer if the request had a key. One message, so all or nothing.
    pub async fn add_customer(
        &mut self,
        permit: &Permit<CreateCustomer>,
        customer: &Customer,
        answer: Option<(&KeyedRequest, &Answer)>,
    ) -> Result<(), StoreError> {
        let data = &customer.data;
        let (request, answer) = answer.unzip();
        let entry = Entry::new(permit, permit.audit(), customer.id);
        sqlx::query!(
            "with c as (
                 insert into customers (tenant_id, id, name, email, phone, tax_id, bank_account, address, email_index,
                                        tax_id_index, created_by, created_at, updated_at)
                 -- The row needs the tenant that entering gives, so its check comes after.
                 select enter_tenant($1::uuid), $2::uuid, $3::text, $4::bytea, $5::bytea, $6::bytea, $7::bytea,
                        $8::bytea, $18::bytea, $19::bytea, $9::text, $10::timestamptz, $10::timestamptz
                 returning tenant_id
             ), k as (
                 insert into customer_keys (tenant_id, customer_id, data_key, wrapped)
                 select c.tenant_id, $2::uuid, $20::integer, $21::bytea from c
                 returning tenant_id
             ), i as (
                 insert into idempotency_keys (tenant_id, subject, client, operation, key, fingerprint, body, location,
                                               created_at, expires_at)
                 select k.tenant_id, $9::text, $11::text, $17::text, $12::text, $13::bytea, $14::text, $15::text,
                        $10::timestamptz, $16::timestamptz
                 from k where $12::text is not null
             )
             select note_audit_event(k.tenant_id, $22::uuid, $9::text, $11::text, $23::text, $24::text, $25::text)
             from k",
            permit.tenant().uuid(),
            customer.id.uuid(),
            data.name.as_str(),
            data.email.bytes(),
            data.phone.as_ref().map(Sealed::bytes),
            data.tax_id.as_ref().map(Sealed::bytes),
            data.bank_account.as_ref().map(Sealed::bytes),
            data.address.as_ref().map(Sealed::bytes),
            permit.principal().subject(),
            customer.created_at,
            permit.principal().client(),
            request.map(|request| request.key.as_str()),
            request.map(|request| request.fingerprint.as_slice()),
            answer.map(|answer| answer.body.as_str()),
            answer.and_then(|answer| answer.location.as_deref()),
            request.map(|request| request.expires_at),
            CreateCustomer::OPERATION,
            data.email_index.bytes(),
            data.tax_id_index.as_ref().map(BlindIndex::bytes),
            customer.key.data_key(),
            customer.key.wrapped(),
            entry.id,
            entry.action,
            entry.object,
            entry.trace_id
        )
        .execute(self.connection())
        .await?;
        entry.tell();
        Ok(())
    }
}
