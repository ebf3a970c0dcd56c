//! Erasure of a customer: deletes the personal data and the row key (CRYPTO-08).
//!
//! The row itself stays for orders and invoices. Copies elsewhere, such as backups, do not decrypt
//! without the key. [`crate::api`] calls both steps.

use chrono::{DateTime, Utc};
use palisade::{
    model::{Stateless, TenantId},
    store::{DbError, Loader, Lockable, ObjectPermit, SealedRow, WriteTx},
};
use uuid::Uuid;

use super::CustomerTable;
use crate::{
    access::actions::EraseCustomer,
    domain::{CustomerId, CustomerRef},
};

struct IdRow {
    id: Uuid,
}

/// A customer that is not erased.
impl Lockable for CustomerRef {
    type Id = CustomerId;
    type State = Stateless;

    fn id(&self) -> CustomerId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn state(&self) -> Stateless {
        Stateless
    }

    async fn load(tx: &Loader<'_>, id: CustomerId) -> Result<Option<Self>, DbError> {
        let statement = palisade::select!(
            tx,
            IdRow,
            "select id from customers where tenant_id = $1 and id = $2 and erased_at is null for no key update",
            id.uuid()
        );
        let row = tx.fetch_optional(statement).await?;
        Ok(row.map(|row| Self { id: CustomerId::from_uuid(row.id), tenant: tx.tenant() }))
    }
}

impl SealedRow for CustomerRef {
    type Table = CustomerTable;
}

/// Erases a customer: clears the name and all sealed fields, and destroys the row key.
///
/// Stored responses that hold the customer are emptied. Their idempotency keys stay, so that a late
/// retry of the creation does not create the customer again.
pub async fn erase(
    tx: &WriteTx<'_, EraseCustomer>,
    permit: &ObjectPermit<'_, EraseCustomer, CustomerRef>,
    collection: &str,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    tx.erase_responses(permit, collection).await?;
    let statement = palisade::update!(
        permit,
        "update customers set name = null, email = null, phone = null, tax_id = null, bank_account = null,
                              address = null, email_index = null, tax_id_index = null, updated_at = $3, erased_at = $3
         where tenant_id = $1 and id = $2",
        now
    );
    tx.change(permit, statement).await?;
    tx.delete_row_key(permit).await
}
