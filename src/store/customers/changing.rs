//! Updates of customers: lock, then store, in one transaction.
//!
//! The handler locks the customer, checks the object, applies the change to the record and stores
//! it. [`crate::api`] calls both steps.

use std::sync::Arc;

use super::{CustomerRecord, CustomerRow, SealedFields, select_customers};
use crate::{
    authz::{ObjectPermit, Permit, actions::UpdateCustomer},
    crypto::{BlindIndex, DataKey, Sealed},
    db::DbError,
    domain::{CustomerId, CustomerRef},
    store::{Database, WriteTx},
};

impl Database {
    /// Begins a transaction and locks the rows of a customer and of its key until it ends. So no
    /// rotation changes the key in between.
    ///
    /// While a data key is fetched, no row is locked and no connection is taken: a vault may be
    /// slow.
    pub async fn lock_customer(
        &self,
        permit: &Permit<UpdateCustomer>,
        id: CustomerId,
    ) -> Result<(WriteTx<UpdateCustomer>, Option<CustomerRecord>), DbError> {
        let mut fetched: Option<(i32, Option<Arc<DataKey>>)> = None;
        // Repeats if a rotation changed the data key in between.
        loop {
            let mut tx = self.write(permit).await?;
            let tenant = tx.tenant();
            let Some(row) = tx.lock_row(id).await? else { return Ok((tx, None)) };
            let version = row.data_key;
            let key = match fetched {
                Some((fetched_version, key)) if fetched_version == version => Some(key.ok_or(DbError::KeyDropped)?),
                _ => self.keyring.cached(tenant, version),
            };
            if let Some(key) = key {
                let row = CustomerRow { id: id.uuid(), ..row };
                return Ok((tx, Some(row.open_with(&key, tenant)?)));
            }
            drop(tx);
            fetched = match self.keyring.fetch(tenant, version).await {
                Ok(key) => Some((version, Some(key))),
                // A rotation has most likely given the customer a newer data key.
                Err(DbError::KeyDropped) => Some((version, None)),
                Err(error) => return Err(error),
            };
        }
    }
}

impl WriteTx<UpdateCustomer> {
    async fn lock_row(&mut self, id: CustomerId) -> Result<Option<CustomerRow>, DbError> {
        let tenant = self.tenant();
        let row = select_customers!(
            "customers join customer_keys k (of_tenant, customer_id, data_key, wrapped_key)
                            on k.of_tenant = tenant_id and k.customer_id = id
             where tenant_id = $1 and id = $2 and erased_at is null for no key update of customers, k",
            tenant.uuid(),
            id.uuid()
        );
        Ok(row.fetch_optional(self.connection()).await?)
    }

    /// Stores a changed customer. Needs the object permit of that customer.
    pub async fn update_customer(
        &mut self,
        permit: &ObjectPermit<'_, UpdateCustomer, CustomerRef>,
        customer: &CustomerRecord,
    ) -> Result<(), DbError> {
        DbError::unless(customer.id == permit.id())?;
        let SealedFields { name, email, phone, tax_id, bank_account, address, email_index, tax_id_index } =
            &customer.fields;
        let done = sqlx::query!(
            "update customers set name = $3, email = $4::bytea, phone = $5::bytea, tax_id = $6::bytea,
                                  bank_account = $7::bytea, address = $8::bytea, email_index = $10::bytea,
                                  tax_id_index = $11::bytea, updated_at = $9
             where tenant_id = $1 and id = $2",
            permit.tenant().uuid(),
            permit.id().uuid(),
            name.as_str(),
            email.bytes(),
            phone.as_ref().map(Sealed::bytes),
            tax_id.as_ref().map(Sealed::bytes),
            bank_account.as_ref().map(Sealed::bytes),
            address.as_ref().map(Sealed::bytes),
            customer.updated_at,
            email_index.bytes(),
            tax_id_index.as_ref().map(BlindIndex::bytes)
        )
        .execute(self.connection())
        .await?;
        DbError::unless(done.rows_affected() == 1)
    }
}
