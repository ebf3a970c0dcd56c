//! Customers: listing, reading and creating them (CRYPTO-02, CRYPTO-06).
//!
//! Search compares blind indexes in the database, then decrypts the field and compares the value.
//! `record` has the sealed form, `changing` and `erasing` the changes. [`crate::api`] calls all of
//! them with a permit.

mod changing;
mod erasing;
mod record;

pub(super) use record::CustomerRow;
pub use record::{CustomerRecord, SEALED_COLUMNS, SealedFields};

use super::{Database, KeyedRequest, Position, ReadTx, SingleStatement, StoredResponse, audit::AuditRecord};
use crate::{
    authz::{
        Action as _, Permit,
        actions::{CreateCustomer, GetCustomer, ListCustomers},
    },
    crypto::{BlindIndex, RowKey, SealError, Sealed},
    db::{DbError, Keyring, TracingExecutor},
    domain::{CustomerId, Email, TaxId, TenantId},
};

pub(super) const TABLE: &str = "customers";

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

/// Filter of a list of customers. Sealed fields can only be searched by their whole value.
#[derive(Debug)]
pub enum CustomerFilter {
    /// No filter.
    None,
    /// Customers with this e-mail address.
    Email(Email),
    /// Customers with this tax identifier. Hyphens are ignored.
    TaxId(TaxId),
}

impl CustomerFilter {
    /// An error if a blind index found a customer that does not have the value.
    fn check(&self, found: &CustomerRecord) -> Result<(), SealError> {
        match (self, &found.fields.tax_id) {
            (Self::None, _) => Ok(()),
            (Self::Email(email), _) => found.fields.email.check_equals(&found.key, email),
            (Self::TaxId(tax_id), Some(sealed)) => sealed.check_equals(&found.key, tax_id),
            (Self::TaxId(_), None) => Err(SealError),
        }
    }
}

/// Opens the row with the requested id and tenant: the row of another customer does not decrypt.
async fn open_as(
    row: Option<CustomerRow>,
    keyring: &Keyring,
    (tenant, id): (TenantId, CustomerId),
) -> Result<Option<CustomerRecord>, DbError> {
    match row {
        Some(row) => Ok(Some(CustomerRow { id: id.uuid(), ..row }.open(keyring, tenant).await?)),
        None => Ok(None),
    }
}

impl ReadTx<ListCustomers> {
    /// Lists at most `limit` customers after `from`, newest first.
    ///
    /// The transaction ends before keys are unwrapped: a vault may be slow, and no connection waits
    /// for it.
    pub async fn customers(
        mut self,
        from: Position,
        filter: &CustomerFilter,
        limit: i64,
    ) -> Result<Vec<CustomerRecord>, DbError> {
        let tenant_id = self.tenant();
        let tenant = tenant_id.uuid();
        let time = from.time();
        // One statement per filter, so that each gets a plan with its own index.
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
        // During a rotation of the index key, each key found a page of its own.
        rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.created_at, row.id)));
        rows.truncate(usize::try_from(limit).unwrap_or(0));
        let keyring = self.into_keyring();
        let mut customers = Vec::with_capacity(rows.len());
        for row in rows {
            let customer = row.open(&keyring, tenant_id).await?;
            filter.check(&customer)?;
            customers.push(customer);
        }
        Ok(customers)
    }
}

impl Database {
    /// Reads a customer in one round trip.
    pub async fn customer(
        &self,
        permit: &Permit<GetCustomer>,
        id: CustomerId,
    ) -> Result<Option<CustomerRecord>, DbError> {
        let row = select_customers!("read_customer($1, $2)", permit.tenant().uuid(), id.uuid())
            .fetch_optional(TracingExecutor(&mut *self.reader.connection().await?))
            .await?;
        open_as(row, &self.keyring, (permit.tenant(), id)).await
    }

    /// Creates the row key of a new customer, wrapped by the tenant's newest data key.
    pub async fn new_customer_key(&self, permit: &Permit<CreateCustomer>, id: CustomerId) -> Result<RowKey, DbError> {
        let data_key = self.keyring.newest(permit.tenant()).await?;
        Ok(data_key.new_row_key(TABLE, id.uuid())?)
    }
}

impl SingleStatement<CreateCustomer> {
    /// Stores a new customer with its audit event, and the response if the request had an
    /// idempotency key. One statement, so all or nothing.
    pub async fn add_customer(
        &mut self,
        permit: &Permit<CreateCustomer>,
        customer: &CustomerRecord,
        response: Option<(&KeyedRequest, &StoredResponse)>,
    ) -> Result<(), DbError> {
        let SealedFields { name, email, phone, tax_id, bank_account, address, email_index, tax_id_index } =
            &customer.fields;
        let (request, response) = response.unzip();
        let audit = AuditRecord::new(permit, permit.audit(), customer.id);
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
            name.as_str(),
            email.bytes(),
            phone.as_ref().map(Sealed::bytes),
            tax_id.as_ref().map(Sealed::bytes),
            bank_account.as_ref().map(Sealed::bytes),
            address.as_ref().map(Sealed::bytes),
            permit.principal().subject(),
            customer.created_at,
            permit.principal().client(),
            request.map(|request| request.key.as_str()),
            request.map(|request| request.fingerprint.as_slice()),
            response.map(|response| response.body.as_str()),
            response.and_then(|response| response.location.as_deref()),
            request.map(|request| request.expires_at),
            CreateCustomer::OPERATION,
            email_index.bytes(),
            tax_id_index.as_ref().map(BlindIndex::bytes),
            customer.key.data_key_version(),
            customer.key.wrapped(),
            audit.id,
            audit.action,
            audit.object,
            audit.trace_id
        )
        .execute(self.connection())
        .await?;
        audit.log();
        Ok(())
    }
}
