//! Seeds the customers of a demo tenant.
//!
//! Customers have sealed fields, which SQL cannot encrypt: so Rust creates them, unlike the rest of
//! the demo data in `demo.sql`. Called by the `seed` of [`super`].

use chrono::TimeDelta;
use palisade::{
    DemoKeys,
    crypto::{BlindIndex, Sealed},
    dev::{self, database::DatabaseError},
    model::{Clock, TenantId},
    store::SealedTable as _,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{CustomerData, CustomerId},
    store::customers::{CustomerRecord, CustomerTable},
};

/// Name, e-mail address, and optionally phone, tax id, bank account and postal address.
const CUSTOMERS: [(&str, &str, [Option<&str>; 4]); 3] = [
    (
        "Initech",
        "billing@initech.example",
        [
            Some("+493012345678"),
            Some("DE136695976"),
            Some("DE89370400440532013000"),
            Some("1 Main Street\n10115 Berlin"),
        ],
    ),
    (
        "Hooli",
        "accounts@hooli.example",
        [Some("+33142685300"), Some("FR40303265045"), Some("FR1420041010050500013M02606"), None],
    ),
    ("Ada Example", "ada@example.com", [None; 4]),
];

/// Adds the customers, unless demo customers exist. Ids begin with 0190a01N; N is the tenant's
/// number.
pub(super) async fn seed(
    owner: &mut PgConnection,
    keys: &DemoKeys,
    tenant: TenantId,
    number: u128,
) -> Result<(), DatabaseError> {
    let existing: i64 =
        sqlx::query_scalar("select count(*) from customers where created_by = 'demo'").fetch_one(&mut *owner).await?;
    if existing > 0 {
        return Ok(());
    }
    let index = dev::index_keys(owner, keys).await?;
    let data_key = dev::data_key(owner, keys, tenant).await?;
    for (n, (name, email, optional_fields)) in (1_u32..).zip(CUSTOMERS) {
        let id = Uuid::from_u128((0x0190_a010 + number) << 96 | 0x7000_8000 << 48 | u128::from(n));
        let id = CustomerId::from_uuid(id);
        let data = customer_data(name, email, optional_fields).ok_or(DatabaseError::Keys)?;
        let key = data_key.new_row_key(CustomerTable::TABLE, id.uuid()).map_err(|_| DatabaseError::Keys)?;
        let created_at = Clock::system().now() - TimeDelta::days(i64::from(10 - n));
        let customer =
            CustomerRecord::new(id, &data, key, &index, tenant, "demo", created_at).map_err(|_| DatabaseError::Keys)?;
        insert(owner, &customer).await?;
    }
    Ok(())
}

fn customer_data(
    name: &str,
    email: &str,
    [phone, tax_id, bank_account, address]: [Option<&str>; 4],
) -> Option<CustomerData> {
    Some(CustomerData {
        name: name.parse().ok()?,
        email: email.parse().ok()?,
        phone: phone.and_then(|text| text.parse().ok()),
        tax_id: tax_id.and_then(|text| text.parse().ok()),
        bank_account: bank_account.and_then(|text| text.parse().ok()),
        address: address.and_then(|text| text.parse().ok()),
    })
}

async fn insert(owner: &mut PgConnection, customer: &CustomerRecord) -> Result<(), DatabaseError> {
    let data = &customer.fields;
    sqlx::query(
        "with c as (
             insert into customers (tenant_id, id, name, email, phone, tax_id, bank_account, address, email_index,
                                    tax_id_index, created_by, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)
         )
         insert into palisade.row_keys (tenant_id, sealed_table, row_id, data_key, wrapped, index_key)
         values ($1, 'customers', $2, $13, $14, $15)",
    )
    .bind(customer.tenant.uuid())
    .bind(customer.id.uuid())
    .bind(data.name.as_str())
    .bind(data.email.bytes())
    .bind(data.phone.as_ref().map(Sealed::bytes))
    .bind(data.tax_id.as_ref().map(Sealed::bytes))
    .bind(data.bank_account.as_ref().map(Sealed::bytes))
    .bind(data.address.as_ref().map(Sealed::bytes))
    .bind(data.email_index.bytes())
    .bind(data.tax_id_index.as_ref().map(BlindIndex::bytes))
    .bind(&customer.created_by)
    .bind(customer.created_at)
    .bind(customer.key.data_key_version())
    .bind(customer.key.wrapped())
    .bind(i32::from(data.index_key))
    .execute(owner)
    .await?;
    Ok(())
}
