//! Forgetting a person (CRYPTO-08).

use chrono::{DateTime, Utc};

use super::{StoreError, WriteTx};
use crate::{
    authz::{ObjectPermit, actions::EraseCustomer},
    domain::{CustomerId, ErasableCustomer},
};

impl WriteTx<EraseCustomer> {
    /// The customer of this id, locked until the transaction ends.
    pub async fn lock_erasable(&mut self, id: CustomerId) -> Result<Option<ErasableCustomer>, StoreError> {
        let tenant = self.tenant();
        let found = sqlx::query_scalar!(
            "select id from customers where tenant_id = $1 and id = $2 and erased_at is null for no key update",
            tenant.uuid(),
            id.uuid()
        )
        .fetch_optional(self.connection())
        .await?;
        Ok(found.map(|id| ErasableCustomer { id: CustomerId::from_uuid(id), tenant }))
    }

    /// Forgets a customer: the row stays for the books, without anything about the person, and the key is destroyed,
    /// without which copies of the row that are elsewhere do not open (CRYPTO-08). Answers that tell of
    /// the customer are emptied, and their keys stay: a late repetition does not bring the customer back.
    pub async fn erase_customer(
        &mut self,
        permit: &ObjectPermit<'_, EraseCustomer, ErasableCustomer>,
        location: &str,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
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
        StoreError::unless(done.rows_affected() == 1)
    }
}
