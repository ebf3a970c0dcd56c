//! The customer that an erasure locks (CRYPTO-08). [`crate::api`] erases it with the kernel's
//! `WriteTx::erase`: the row stays for orders and invoices, without personal data and row key.

use palisade::{
    model::{Stateless, TenantId},
    store::{DbError, Loader, Lockable, SealedRow},
};
use uuid::Uuid;

use super::CustomerTable;
use crate::domain::{CustomerId, CustomerRef};

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
