//! Customers: listing, searching, reading and creating them (CRYPTO-02, CRYPTO-06).
//!
//! Search compares blind indexes in the database, then decrypts the field and compares the value.
//! `record` has the sealed form, `changing` and `erasing` the changes. [`crate::api`] calls all of
//! them with a permit.

mod changing;
mod erasing;
mod record;

pub use changing::{SealedCustomer, update};
use palisade::{
    authz::Permit,
    crypto::{BlindIndex, SealError, Sealed},
    store::{CreateRecord, Database, DbError, KeyedRequest, Listed, Position, SingleStatement, StoredResponse},
};
use record::CustomerRow;

use crate::{
    access::actions::{CreateCustomer, GetCustomer, ListCustomers, SearchCustomers},
    domain::{CustomerId, Email, TaxId},
};
pub use record::{CustomerRecord, CustomerTable, SealedFields};

/// One statement `$kind!` that reads customers with their row keys. `$from` is its text after
/// `from`.
macro_rules! customers {
    ($kind:ident, $source:expr, [$($from:tt)+], $($argument:expr),+ $(,)?) => {
        palisade::$kind!(
            $source,
            CustomerRow,
            r#"select id as "id!", name as "name!", email as "email!", phone, tax_id,
                      bank_account, address, email_index, tax_id_index, index_key, data_key as "data_key?",
                      wrapped_key as "wrapped_key?", created_by as "created_by!", created_at as "created_at!",
                      updated_at as "updated_at!"
               from "# + $($from)+,
            $($argument),+
        )
    };
}
use customers;

/// What to search customers by. Sealed fields can only be searched by their whole value.
#[derive(Debug)]
pub enum CustomerFilter {
    /// Customers with this e-mail address.
    Email(Email),
    /// Customers with this tax identifier. Hyphens are ignored.
    TaxId(TaxId),
}

impl CustomerFilter {
    /// An error if a blind index found a customer that does not have the value.
    fn check(&self, found: &CustomerRecord) -> Result<(), SealError> {
        match (self, &found.fields.tax_id) {
            (Self::Email(email), _) => found.fields.email.check_equals(&found.key, email),
            (Self::TaxId(tax_id), Some(sealed)) => sealed.check_equals(&found.key, tax_id),
            (Self::TaxId(_), None) => Err(SealError),
        }
    }
}

/// The rows whose blind index is one of `$value`, newest first.
macro_rules! matching {
    ($database:ident, $permit:ident, $from:ident, $limit:ident, $value:ident, $column:literal) => {{
        let mut rows = Vec::new();
        let tx = $database.read($permit).await?;
        for index in $database.indexes().candidates($permit.tenant().uuid(), $value) {
            let statement = customers!(
                select,
                tx,
                ["customer_documents where tenant_id = $1 and (created_at, id) < ($2, $3) and "
                    + $column
                    + " = $5 order by created_at desc, id desc limit $4"],
                $from.time(),
                $from.id,
                $limit,
                index
            );
            rows.extend(tx.fetch_all(statement).await?);
        }
        // During a rotation of the index key, each key found a page of its own.
        rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.created_at, row.id)));
        rows.truncate(usize::try_from($limit).unwrap_or(0));
        rows
    }};
}

/// Lists at most `limit` customers after `from`, newest first.
///
/// No connection is held while keys are unwrapped: a vault may be slow.
pub async fn page(
    database: &Database,
    permit: &Permit<ListCustomers>,
    from: Position,
    limit: i64,
) -> Result<Vec<Listed<CustomerRecord>>, DbError> {
    let statement = customers!(
        read_one,
        permit,
        ["customer_documents where tenant_id = t.tenant and (created_at, id) < ($2, $3)
          order by created_at desc, id desc limit $4"],
        from.time(),
        from.id,
        limit
    );
    let rows = database.read_page(permit, statement).await?;
    let mut customers = Vec::with_capacity(rows.len());
    for row in rows {
        let position = Position { at: row.created_at, id: row.id };
        customers.push(Listed::new(position, row.open(database, permit).await)?);
    }
    Ok(customers)
}

/// Lists the customers that match the filter, as [`page`] does.
pub async fn search(
    database: &Database,
    permit: &Permit<SearchCustomers>,
    from: Position,
    filter: &CustomerFilter,
    limit: i64,
) -> Result<Vec<Listed<CustomerRecord>>, DbError> {
    let rows = match filter {
        CustomerFilter::Email(email) => matching!(database, permit, from, limit, email, "email_index"),
        CustomerFilter::TaxId(tax_id) => matching!(database, permit, from, limit, tax_id, "tax_id_index"),
    };
    let mut customers = Vec::with_capacity(rows.len());
    for row in rows {
        let position = Position { at: row.created_at, id: row.id };
        let customer = row.open(database, permit).await;
        let checked = customer.and_then(|customer| Ok(filter.check(&customer).map(|()| customer)?));
        customers.push(Listed::new(position, checked)?);
    }
    Ok(customers)
}

/// Reads a customer in one message.
pub async fn get(
    database: &Database,
    permit: &Permit<GetCustomer>,
    id: CustomerId,
) -> Result<Option<CustomerRecord>, DbError> {
    let statement =
        customers!(read_one, permit, ["customer_documents where tenant_id = t.tenant and id = $2"], id.uuid());
    let Some(row) = database.read_one(permit, statement).await? else { return Ok(None) };
    // Opens it with the requested id and tenant: the row of another customer does not decrypt.
    let row = CustomerRow { id: id.uuid(), ..row };
    Ok(Some(row.open(database, permit).await?))
}

/// Stores a new customer with its audit event, and the response if the request had an idempotency
/// key. One message, so all or nothing.
pub async fn create(
    statements: SingleStatement<CreateCustomer>,
    permit: &Permit<CreateCustomer>,
    customer: &CustomerRecord,
    keyed: Option<(&KeyedRequest, &StoredResponse)>,
) -> Result<(), DbError> {
    let SealedFields { name, email, phone, tax_id, bank_account, address, email_index, tax_id_index, index_key } =
        &customer.fields;
    let record =
        CreateRecord::new(permit, customer.id, keyed).with_row_key::<CustomerTable>(&customer.key, Some(*index_key));
    let statement = palisade::create!(
        permit,
        &record,
        "c as (
             insert into customers (tenant_id, id, name, email, phone, tax_id, bank_account, address, email_index,
                                    tax_id_index, created_by, created_at, updated_at)
             select t.tenant, $3::uuid, $4::text, $5::bytea, $6::bytea, $7::bytea, $8::bytea, $9::bytea, $10::bytea,
                    $11::bytea, $12::text, $13::timestamptz, $13::timestamptz
             from t
         )",
        customer.id.uuid(),
        name.as_str(),
        email.bytes(),
        phone.as_ref().map(Sealed::bytes),
        tax_id.as_ref().map(Sealed::bytes),
        bank_account.as_ref().map(Sealed::bytes),
        address.as_ref().map(Sealed::bytes),
        email_index.bytes(),
        tax_id_index.as_ref().map(BlindIndex::bytes),
        customer.created_by,
        customer.created_at
    );
    statements.create(permit, &record, statement).await
}
