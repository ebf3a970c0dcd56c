//! Erasure of a customer: deletes the personal data and the row key (CRYPTO-08).
//!
//! The row itself stays for orders and invoices. Copies elsewhere, such as backups, do not decrypt
//! without the key. [`crate::api`] calls both steps.

use chrono::{DateTime, Utc};

use crate::{
    authz::{ObjectPermit, actions::EraseCustomer},
    db::DbError,
    domain::{CustomerId, CustomerRef},
    store::WriteTx,
};

impl WriteTx<EraseCustomer> {
    /// Locks a customer that is not erased, until the transaction ends.
    pub async fn lock_erasable(&mut self, id: CustomerId) -> Result<Option<CustomerRef>, DbError> {
        let tenant = self.tenant();
        let found = sqlx::query_scalar!(
            "select id from customers where tenant_id = $1 and id = $2 and erased_at is null for no key update",
            tenant.uuid(),
            id.uuid()
        )
        .fetch_optional(self.connection())
        .await?;
        Ok(found.map(|id| CustomerRef { id: CustomerId::from_uuid(id), tenant }))
    }

    /// Erases a customer: clears the name and all sealed fields, and destroys the row key.
    ///
    /// Stored responses that hold the customer are emptied. Their idempotency keys stay, so that a
    /// late retry of the creation does not create the customer again.
    pub async fn erase_customer(
        &mut self,
        permit: &ObjectPermit<'_, EraseCustomer, CustomerRef>,
        location: &str,
        now: DateTime<Utc>,
    ) -> Result<(), DbError> {
        let done = sqlx::query!(
            "with answers as (update idempotency_keys set body = null, location = null
                              where tenant_id = $1 and location = $3),
                  key as (delete from customer_keys where tenant_id = $1 and customer_id = $2)
             update customers set name = null, email = null, phone = null, tax_id = null, bank_account = null,
                                  address = null, email_index = null, tax_id_index = null, updated_at = $4,
                                  erased_at = $4
             where tenant_id = $1 and id = $2",
            permit.tenant().uuid(),
            permit.id().uuid(),
            location,
            now
        )
        .execute(self.connection())
        .await?;
        DbError::unless(done.rows_affected() == 1)
    }
}
