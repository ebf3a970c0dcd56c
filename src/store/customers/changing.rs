//! Customers that change.

use std::sync::Arc;

use super::{CustomerRow, select_customers};
use crate::{
    authz::{ObjectPermit, Permit, actions::UpdateCustomer},
    crypto::{BlindIndex, DataKey, Sealed},
    domain::{Customer, CustomerId},
    store::{Database, StoreError, WriteTx},
};

impl Database {
    /// A transaction with the customer of this id, locked until it ends: its key too, so that no rotation comes between the
    /// two. Nothing is locked, and no connection taken, while a master key is waited for.
    pub async fn lock_customer(
        &self,
        permit: &Permit<UpdateCustomer>,
        id: CustomerId,
    ) -> Result<(WriteTx<UpdateCustomer>, Option<Customer>), StoreError> {
        let mut fetched: Option<(i32, Option<Arc<DataKey>>)> = None;
        // Once more for each rotation that comes in between.
        loop {
            let mut tx = self.write(permit).await?;
            let tenant = tx.tenant();
            let Some(row) = tx.locked_row(id).await? else { return Ok((tx, None)) };
            let version = row.data_key;
            let key = match fetched {
                Some((of, key)) if of == version => Some(key.ok_or(StoreError::KeyDropped)?),
                _ => self.keyring.at_hand(tenant, version),
            };
            if let Some(key) = key {
                let row = CustomerRow { id: id.uuid(), ..row };
                return Ok((tx, Some(row.with_data_key(&key, tenant)?)));
            }
            drop(tx);
            fetched = match self.keyring.fetch(tenant, version).await {
                Ok(key) => Some((version, Some(key))),
                // Most likely the customer has another by now.
                Err(StoreError::KeyDropped) => Some((version, None)),
                Err(error) => return Err(error),
            };
        }
    }
}

impl WriteTx<UpdateCustomer> {
    async fn locked_row(&mut self, id: CustomerId) -> Result<Option<CustomerRow>, StoreError> {
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

    /// Stores what a customer has become. Needs the permit narrowed to that customer.
    pub async fn update_customer(
        &mut self,
        permit: &ObjectPermit<'_, UpdateCustomer, Customer>,
        customer: &Customer,
    ) -> Result<(), StoreError> {
        StoreError::unless(customer.id == permit.id())?;
        let data = &customer.data;
        let done = sqlx::query!(
            "update customers set name = $3, email = $4::bytea, phone = $5::bytea, tax_id = $6::bytea,
                                  bank_account = $7::bytea, address = $8::bytea, email_index = $10::bytea,
                                  tax_id_index = $11::bytea, updated_at = $9
             where tenant_id = $1 and id = $2",
            permit.tenant().uuid(),
            permit.id().uuid(),
            data.name.as_str(),
            data.email.bytes(),
            data.phone.as_ref().map(Sealed::bytes),
            data.tax_id.as_ref().map(Sealed::bytes),
            data.bank_account.as_ref().map(Sealed::bytes),
            data.address.as_ref().map(Sealed::bytes),
            customer.updated_at,
            data.email_index.bytes(),
            data.tax_id_index.as_ref().map(BlindIndex::bytes)
        )
        .execute(self.connection())
        .await?;
        StoreError::unless(done.rows_affected() == 1)
    }
}
