//! Updates of customers: lock, then store, in one transaction.
//!
//! In: the permit and a merge patch. Out: the customer as it is stored now. [`crate::api`] calls
//! [`update`].

use std::sync::Arc;

use chrono::{DateTime, Utc};
use palisade::{
    authz::{ObjectRule, Permit},
    crypto::{BlindIndex, DataKey, Sealed},
    model::{Stateless, TenantId},
    store::{Database, DbError, Loader, Lockable, ObjectPermit, SealedRow, WriteTx},
};

use super::{CustomerRecord, CustomerRow, CustomerTable, SealedFields, customers};
use crate::{
    access::actions::UpdateCustomer,
    domain::{CustomerChange, CustomerId},
};

/// A customer as it is stored, with its row key still wrapped.
pub struct SealedCustomer {
    row: CustomerRow,
    tenant: TenantId,
}

impl Lockable for SealedCustomer {
    type Id = CustomerId;
    type State = Stateless;

    fn id(&self) -> CustomerId {
        CustomerId::from_uuid(self.row.id)
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn state(&self) -> Stateless {
        Stateless
    }

    /// Locks the rows of the customer and of its key, so that no rotation changes the key.
    async fn load(tx: &Loader<'_>, id: CustomerId) -> Result<Option<Self>, DbError> {
        let statement = customers!(
            select,
            tx,
            ["customers join palisade.row_keys as k (of_tenant, sealed_table, row_id, data_key, wrapped_key, index_key)
                             on k.of_tenant = tenant_id and k.sealed_table = 'customers' and k.row_id = id
              where tenant_id = $1 and id = $2 and erased_at is null for no key update of customers, k"],
            id.uuid()
        );
        Ok(tx.fetch_optional(statement).await?.map(|row| Self { row, tenant: tx.tenant() }))
    }
}

impl SealedRow for SealedCustomer {
    type Table = CustomerTable;
}

impl ObjectRule<SealedCustomer> for UpdateCustomer {
    fn state_allows(_: &SealedCustomer) -> bool {
        true
    }
}

/// Applies a change to a customer and commits it; an empty one changes nothing. `None` if there is
/// no such customer.
///
/// While a data key is fetched, no row is locked and no connection is taken: a vault may be slow.
pub async fn update(
    database: &Database,
    permit: &Permit<UpdateCustomer>,
    id: CustomerId,
    change: CustomerChange,
    now: DateTime<Utc>,
) -> Result<Option<CustomerRecord>, DbError> {
    let mut fetched: Option<(i32, Option<Arc<DataKey>>)> = None;
    // Repeats if a rotation changed the data key in between.
    loop {
        let version = {
            let tx = database.write(permit).await?;
            let Some(sealed) = tx.lock::<SealedCustomer>(id).await? else { return Ok(None) };
            let version = sealed.row.data_key_version(permit)?;
            let key = match fetched {
                Some((fetched_version, key)) if fetched_version == version => Some(key.ok_or(DbError::KeyDropped)?),
                _ => database.cached_data_key(permit, version),
            };
            if let Some(key) = key {
                let customer = sealed.row.clone().open_with(&key, permit)?;
                if change.is_empty() {
                    return Ok(Some(customer));
                }
                let customer = customer.change(change, &database.indexes(), now)?;
                store(&tx, &permit.for_object(&sealed)?, &customer, sealed.row.index_key).await?;
                tx.commit(permit, id).await?;
                return Ok(Some(customer));
            }
            version
        };
        fetched = match database.data_key(permit, version).await {
            Ok(key) => Some((version, Some(key))),
            // A rotation has most likely given the customer a newer data key.
            Err(DbError::KeyDropped) => Some((version, None)),
            Err(error) => return Err(error),
        };
    }
}

async fn store(
    tx: &WriteTx<'_, UpdateCustomer>,
    permit: &ObjectPermit<'_, UpdateCustomer, SealedCustomer>,
    customer: &CustomerRecord,
    stored_index_key: Option<i32>,
) -> Result<(), DbError> {
    let SealedFields { name, email, phone, tax_id, bank_account, address, email_index, tax_id_index, index_key } =
        &customer.fields;
    let statement = palisade::update!(
        permit,
        "update customers set name = $3, email = $4::bytea, phone = $5::bytea, tax_id = $6::bytea,
                              bank_account = $7::bytea, address = $8::bytea, email_index = $10::bytea,
                              tax_id_index = $11::bytea, updated_at = $9
         where tenant_id = $1 and id = $2",
        name.as_str(),
        email.bytes(),
        phone.as_ref().map(Sealed::bytes),
        tax_id.as_ref().map(Sealed::bytes),
        bank_account.as_ref().map(Sealed::bytes),
        address.as_ref().map(Sealed::bytes),
        customer.updated_at,
        email_index.bytes(),
        tax_id_index.as_ref().map(BlindIndex::bytes)
    );
    tx.change(permit, statement).await?;
    if stored_index_key == Some(i32::from(*index_key)) {
        return Ok(());
    }
    tx.set_index_key(permit, *index_key).await
}
