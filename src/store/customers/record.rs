//! Customers as they are stored: every field about the person sealed with the key of the row
//! (CRYPTO-02), e-mail address and tax identifier searchable by a blind index (CRYPTO-06).
//!
//! A sealed column is listed once, in `sealed_table!`; rotations of keys use that list. Every
//! function that writes sealed columns builds or destructures [`SealedFields`] in full, so a column
//! that one of them forgets does not compile.

use chrono::{DateTime, Utc};
use palisade::{
    authz::{Action, Permit},
    crypto::{BlindIndex, DataKey, IndexKeys, Indexed, RowKey, SealError, Sealable, Sealed},
    model::{Name, TenantId},
    sealed_table,
    store::{Database, DbError, SealedTable as _, parse_stored},
};
use uuid::Uuid;

use crate::domain::{Address, BankAccount, CustomerChange, CustomerData, CustomerId, Email, FieldChange, Phone, TaxId};

sealed_table! {
    /// The table `customers`.
    CustomerTable = "customers", erased "erased_at" "name";
    Email in "email" as "email_index";
    Phone in "phone";
    TaxId in "tax_id" as "tax_id_index";
    BankAccount in "bank_account";
    Address in "address";
}

/// Addresses are in lower case already.
impl Indexed for Email {}

impl Indexed for TaxId {
    /// People write or omit hyphens.
    const IGNORED: &'static [char] = &['-'];
}

/// The data of a customer, sealed except for the name.
#[derive(Debug)]
pub struct SealedFields {
    /// Display name, in plain text.
    pub name: Name,
    /// E-mail address.
    pub email: Sealed<Email>,
    /// Telephone number.
    pub phone: Option<Sealed<Phone>>,
    /// Tax identifier.
    pub tax_id: Option<Sealed<TaxId>>,
    /// Bank account.
    pub bank_account: Option<Sealed<BankAccount>>,
    /// Postal address.
    pub address: Option<Sealed<Address>>,
    /// Blind index of the e-mail address.
    pub email_index: BlindIndex,
    /// Blind index of the tax identifier.
    pub tax_id_index: Option<BlindIndex>,
    /// Version of the index key of both.
    pub index_key: u16,
}

/// A stored customer with the row key that opens its fields. Erasure destroys that key.
#[derive(Debug)]
pub struct CustomerRecord {
    /// Identifier.
    pub id: CustomerId,
    /// Tenant.
    pub tenant: TenantId,
    /// Sealed data.
    pub fields: SealedFields,
    /// Key of the row.
    pub key: RowKey,
    /// `sub` of the principal that created the customer.
    pub created_by: String,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// Time of the last change.
    pub updated_at: DateTime<Utc>,
}

impl SealedFields {
    fn seal(data: &CustomerData, key: &RowKey, indexes: &IndexKeys, tenant: TenantId) -> Result<Self, SealError> {
        let CustomerData { name, email, phone, tax_id, bank_account, address } = data;
        Ok(Self {
            name: name.clone(),
            email: Sealed::new(email, key)?,
            phone: seal(phone.as_ref(), key)?,
            tax_id: seal(tax_id.as_ref(), key)?,
            bank_account: seal(bank_account.as_ref(), key)?,
            address: seal(address.as_ref(), key)?,
            email_index: indexes.index(tenant.uuid(), email),
            tax_id_index: tax_id.as_ref().map(|tax_id| indexes.index(tenant.uuid(), tax_id)),
            index_key: indexes.primary(),
        })
    }

    fn apply(
        &mut self,
        change: CustomerChange,
        key: &RowKey,
        indexes: &IndexKeys,
        tenant: TenantId,
    ) -> Result<(), SealError> {
        let CustomerChange { name, email, phone, tax_id, bank_account, address } = change;
        if let Some(name) = name {
            self.name = name;
        }
        let changes_index = email.is_some() || !matches!(tax_id, FieldChange::Keep);
        if let Some(email) = email {
            self.email = Sealed::new(&email, key)?;
        }
        apply(phone, &mut self.phone, key)?;
        apply(tax_id, &mut self.tax_id, key)?;
        apply(bank_account, &mut self.bank_account, key)?;
        apply(address, &mut self.address, key)?;
        if changes_index {
            // All indexes: those of a row have one index key.
            let index = |tax_id: &Sealed<TaxId>| indexes.index_sealed(tenant.uuid(), tax_id, key);
            self.email_index = indexes.index_sealed(tenant.uuid(), &self.email, key)?;
            self.tax_id_index = self.tax_id.as_ref().map(index).transpose()?;
            self.index_key = indexes.primary();
        }
        Ok(())
    }
}

impl CustomerRecord {
    /// Seals a new customer with `key`, the key of its row.
    ///
    /// # Errors
    /// The cipher fails.
    pub fn new(
        id: CustomerId,
        data: &CustomerData,
        key: RowKey,
        indexes: &IndexKeys,
        tenant: TenantId,
        created_by: &str,
        now: DateTime<Utc>,
    ) -> Result<Self, SealError> {
        let fields = SealedFields::seal(data, &key, indexes, tenant)?;
        Ok(Self { id, tenant, fields, key, created_by: created_by.to_owned(), created_at: now, updated_at: now })
    }

    /// Applies a change. Fields that stay are not opened.
    ///
    /// # Errors
    /// The cipher fails.
    pub fn change(
        mut self,
        change: CustomerChange,
        indexes: &IndexKeys,
        now: DateTime<Utc>,
    ) -> Result<Self, SealError> {
        self.fields.apply(change, &self.key, indexes, self.tenant)?;
        self.updated_at = now;
        Ok(self)
    }
}

fn seal<T: Sealable>(value: Option<&T>, key: &RowKey) -> Result<Option<Sealed<T>>, SealError> {
    value.map(|value| Sealed::new(value, key)).transpose()
}

fn apply<T: Sealable>(change: FieldChange<T>, field: &mut Option<Sealed<T>>, key: &RowKey) -> Result<(), SealError> {
    match change {
        FieldChange::Keep => {}
        FieldChange::Clear => *field = None,
        FieldChange::Set(value) => *field = Some(Sealed::new(&value, key)?),
    }
    Ok(())
}

/// A row of `customers` joined with its row of `palisade.row_keys`.
#[derive(Clone)]
pub(super) struct CustomerRow {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) email: Vec<u8>,
    pub(super) phone: Option<Vec<u8>>,
    pub(super) tax_id: Option<Vec<u8>>,
    pub(super) bank_account: Option<Vec<u8>>,
    pub(super) address: Option<Vec<u8>>,
    /// `None`, as is `index_key`, if the data keys of the tenant are destroyed.
    pub(super) email_index: Option<Vec<u8>>,
    pub(super) tax_id_index: Option<Vec<u8>>,
    pub(super) index_key: Option<i32>,
    /// `None`, as is `wrapped_key`, if the row key is missing.
    pub(super) data_key: Option<i32>,
    pub(super) wrapped_key: Option<Vec<u8>>,
    pub(super) created_by: String,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

impl CustomerRow {
    /// Opens the row with the data key that wraps its key, which may have to be fetched.
    pub(super) async fn open(
        self,
        database: &Database,
        permit: &Permit<impl Action>,
    ) -> Result<CustomerRecord, DbError> {
        let data_key = database.data_key(permit, self.data_key_version(permit)?).await?;
        self.open_with(&data_key, permit)
    }

    /// The version of the data key that wraps its key.
    pub(super) fn data_key_version(&self, permit: &Permit<impl Action>) -> Result<i32, DbError> {
        self.data_key.ok_or_else(|| Database::missing_row_key::<CustomerTable>(permit, self.id))
    }

    /// Opens the row with a data key at hand.
    pub(super) fn open_with(self, data_key: &DataKey, permit: &Permit<impl Action>) -> Result<CustomerRecord, DbError> {
        let (email_index, index_key) = self.email_index.zip(self.index_key).ok_or(DbError::KeyDestroyed)?;
        let key = data_key.unwrap_row_key(CustomerTable::TABLE, self.id, self.wrapped_key.unwrap_or_default())?;
        Ok(CustomerRecord {
            id: CustomerId::from_uuid(self.id),
            tenant: permit.tenant(),
            fields: SealedFields {
                name: parse_stored(&self.name)?,
                email: Sealed::from_stored(self.email),
                phone: self.phone.map(Sealed::from_stored),
                tax_id: self.tax_id.map(Sealed::from_stored),
                bank_account: self.bank_account.map(Sealed::from_stored),
                address: self.address.map(Sealed::from_stored),
                email_index: BlindIndex::from_stored(email_index),
                tax_id_index: self.tax_id_index.map(BlindIndex::from_stored),
                index_key: u16::try_from(index_key).map_err(DbError::broken)?,
            },
            key,
            created_by: self.created_by,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}
