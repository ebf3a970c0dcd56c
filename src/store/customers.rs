use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Answer, Database, KeyedRequest, Position, ReadTx, Statements, StoreError, WriteTx, position::stored};
use crate::{
    authz::{
        Action as _, Narrow, ObjectPermit, Permit,
        actions::{CreateCustomer, EraseCustomer, GetCustomer, ListCustomers, UpdateCustomer},
    },
    domain::{Address, BankAccount, Customer, CustomerData, CustomerId, Email, Phone, TaxId, TenantId},
};

/// Without `Debug`: it holds what must not be printed.
struct CustomerRow {
    tenant_id: Uuid,
    id: Uuid,
    name: String,
    email: String,
    phone: Option<String>,
    tax_id: Option<String>,
    bank_account: Option<String>,
    address: Option<String>,
    created_by: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

macro_rules! select_customers {
    ($from:tt, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            CustomerRow,
            r#"select tenant_id as "tenant_id!", id as "id!", name as "name!", email as "email!", phone, tax_id,
                      bank_account, address, created_by as "created_by!", created_at as "created_at!",
                      updated_at as "updated_at!"
               from "# + $from,
            $($argument),+
        )
    };
}

impl TryFrom<CustomerRow> for Customer {
    type Error = StoreError;

    fn try_from(row: CustomerRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: CustomerId::from_uuid(row.id),
            tenant: TenantId::from_uuid(row.tenant_id),
            data: CustomerData {
                name: stored(&row.name)?,
                email: Email::from_stored(row.email),
                phone: row.phone.map(Phone::from_stored),
                tax_id: row.tax_id.map(TaxId::from_stored),
                bank_account: row.bank_account.map(BankAccount::from_stored),
                address: row.address.map(Address::from_stored),
            },
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl ReadTx<ListCustomers> {
    /// At most `limit` customers after `from`, newest first; those with this e-mail address if one is given.
    pub async fn customers(
        &mut self,
        from: Position,
        email: Option<&Email>,
        limit: i64,
    ) -> Result<Vec<Customer>, StoreError> {
        let tenant = self.tenant().uuid();
        // One statement per filter, so that each has a plan of its own, by its own index.
        let rows = match email {
            None => {
                select_customers!(
                    "customers where tenant_id = $1 and erased_at is null and (created_at, id) < ($2, $3)
                     order by created_at desc, id desc limit $4",
                    tenant,
                    from.time(),
                    from.id,
                    limit
                )
                .fetch_all(self.connection())
                .await?
            }
            Some(email) => {
                select_customers!(
                    "customers where tenant_id = $1 and erased_at is null and (created_at, id) < ($2, $3)
                     and email = $5 order by created_at desc, id desc limit $4",
                    tenant,
                    from.time(),
                    from.id,
                    limit,
                    email.expose()
                )
                .fetch_all(self.connection())
                .await?
            }
        };
        rows.into_iter().map(Customer::try_from).collect()
    }
}

impl Database {
    /// The customer of this id, read in one message.
    pub async fn customer(&self, permit: &Permit<GetCustomer>, id: CustomerId) -> Result<Option<Customer>, StoreError> {
        let row = select_customers!("read_customer($1, $2)", permit.tenant().uuid(), id.uuid())
            .fetch_optional(&self.reader)
            .await?;
        row.map(Customer::try_from).transpose()
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
        sqlx::query!(
            "with c as (
                 insert into customers (tenant_id, id, name, email, phone, tax_id, bank_account, address, created_by,
                                        created_at, updated_at)
                 -- The row needs the tenant that entering gives, so its check comes after.
                 select enter_tenant($1::uuid), $2::uuid, $3::text, $4::text, $5::text, $6::text, $7::text, $8::text,
                        $9::text, $10::timestamptz, $10::timestamptz
                 returning tenant_id
             )
             insert into idempotency_keys (tenant_id, subject, client, operation, key, fingerprint, body, location,
                                           created_at, expires_at)
             select c.tenant_id, $9::text, $11::text, $17::text, $12::text, $13::bytea, $14::text, $15::text,
                    $10::timestamptz, $16::timestamptz
             from c where $12::text is not null",
            permit.tenant().uuid(),
            customer.id.uuid(),
            data.name.as_str(),
            data.email.expose(),
            data.phone.as_ref().map(Phone::expose),
            data.tax_id.as_ref().map(TaxId::expose),
            data.bank_account.as_ref().map(BankAccount::expose),
            data.address.as_ref().map(Address::expose),
            permit.principal().subject(),
            customer.created_at,
            permit.principal().client(),
            request.map(|request| request.key.as_str()),
            request.map(|request| request.fingerprint.as_slice()),
            answer.map(|answer| answer.body.as_str()),
            answer.and_then(|answer| answer.location.as_deref()),
            request.map(|request| request.expires_at),
            CreateCustomer::OPERATION
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl<A: Narrow<Customer>> WriteTx<A> {
    /// The customer of this id, locked until the transaction ends.
    pub async fn lock_customer(&mut self, id: CustomerId) -> Result<Option<Customer>, StoreError> {
        let tenant = self.tenant().uuid();
        let row = select_customers!(
            "customers where tenant_id = $1 and id = $2 and erased_at is null for no key update",
            tenant,
            id.uuid()
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(Customer::try_from).transpose()
    }
}

impl WriteTx<UpdateCustomer> {
    /// Stores what a customer has become. Needs the permit narrowed to that customer.
    pub async fn update_customer(
        &mut self,
        permit: &ObjectPermit<'_, UpdateCustomer, Customer>,
        customer: &Customer,
    ) -> Result<(), StoreError> {
        StoreError::unless(customer.id == permit.id())?;
        let data = &customer.data;
        let done = sqlx::query!(
            "update customers set name = $3, email = $4, phone = $5, tax_id = $6, bank_account = $7, address = $8,
                                  updated_at = $9
             where tenant_id = $1 and id = $2",
            permit.tenant().uuid(),
            permit.id().uuid(),
            data.name.as_str(),
            data.email.expose(),
            data.phone.as_ref().map(Phone::expose),
            data.tax_id.as_ref().map(TaxId::expose),
            data.bank_account.as_ref().map(BankAccount::expose),
            data.address.as_ref().map(Address::expose),
            customer.updated_at
        )
        .execute(self.connection())
        .await?;
        StoreError::unless(done.rows_affected() == 1)
    }
}

impl WriteTx<EraseCustomer> {
    /// Forgets a customer: the row stays for the books, without anything about the person. Answers that tell of
    /// the customer are emptied, and their keys stay: a late repetition does not bring the customer back.
    pub async fn erase_customer(
        &mut self,
        permit: &ObjectPermit<'_, EraseCustomer, Customer>,
        location: &str,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let done = sqlx::query!(
            "with answers as (update idempotency_keys set body = null, location = null
                              where tenant_id = $1 and location = $3)
             update customers set name = null, email = null, phone = null, tax_id = null, bank_account = null,
                                  address = null, updated_at = $4, erased_at = $4
             where tenant_id = $1 and id = $2",
            permit.tenant().uuid(),
            permit.id().uuid(),
            location,
            now
        )
        .execute(self.connection())
        .await?;
        StoreError::unless(done.rows_affected() == 1)
    }
}
