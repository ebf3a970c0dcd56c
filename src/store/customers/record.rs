//! Customers as they are stored: every field about the person sealed with the key of the row
//! (CRYPTO-02), e-mail address and tax identifier searchable by a blind index (CRYPTO-06).
//!
//! A sealed column is listed once, in `sealed!`. Every function that writes sealed columns builds
//! or destructures [`SealedFields`] in full, so a column that one of them forgets does not compile.

use chrono::{DateTime, Utc};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::TABLE;
use crate::{
    crypto::{BlindIndex, DataKey, IndexKeys, Indexed, RowKey, SealError, Sealable, Sealed},
    db::{DbError, Keyring, parse_stored, unwrap_row_key},
    domain::{Address, BankAccount, CustomerChange, CustomerData, CustomerId, Email, FieldChange, Phone, TaxId},
    model::{Name, TenantId},
};

macro_rules! sealed {
    ($($type:ident in $column:literal),+ $(,)?) => {
        /// The sealed columns of `customers`. A test compares them with the database.
        pub const SEALED_COLUMNS: &[&str] = &[$($column),+];

        $(impl Sealable for $type {
            const TABLE: &'static str = TABLE;
            const COLUMN: &'static str = $column;

            fn plain(&self) -> &str {
                self.expose()
            }

            fn from_sealed(text: String) -> Self {
                Self::from_stored(text)
            }

            fn masked(&self) -> String {
                self.masked()
            }
        })+
    };
}

sealed! {
    Email in "email",
    Phone in "phone",
    TaxId in "tax_id",
    BankAccount in "bank_account",
    Address in "address",
}

impl Indexed for Email {
    /// Addresses are in lower case already.
    fn normalized(&self) -> Zeroizing<String> {
        self.expose().to_owned().into()
    }
}

impl Indexed for TaxId {
    /// Without hyphens, which people write or omit.
    fn normalized(&self) -> Zeroizing<String> {
        // The capacity is that of the text, so that it does not grow and leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(self.expose().len()));
        text.extend(self.expose().chars().filter(|c| *c != '-'));
        text
    }
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

    /// The same data sealed with the key `new`, and indexed with the first index key.
    fn reseal(&self, old: &RowKey, new: &RowKey, indexes: &IndexKeys, tenant: TenantId) -> Result<Self, SealError> {
        let Self { name, email, phone, tax_id, bank_account, address, email_index: _, tax_id_index: _, index_key: _ } =
            self;
        let index = |tax_id: &Sealed<TaxId>| indexes.index_sealed(tenant.uuid(), tax_id, old);
        Ok(Self {
            name: name.clone(),
            email: email.reseal(old, new)?,
            phone: reseal(phone.as_ref(), old, new)?,
            tax_id: reseal(tax_id.as_ref(), old, new)?,
            bank_account: reseal(bank_account.as_ref(), old, new)?,
            address: reseal(address.as_ref(), old, new)?,
            email_index: indexes.index_sealed(tenant.uuid(), email, old)?,
            tax_id_index: tax_id.as_ref().map(index).transpose()?,
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

    /// Re-encrypts every sealed field with a new row key under `data_key`.
    pub(in crate::store) fn reseal(self, data_key: &DataKey, indexes: &IndexKeys) -> Result<Self, SealError> {
        let key = data_key.new_row_key(TABLE, self.id.uuid())?;
        let fields = self.fields.reseal(&self.key, &key, indexes, self.tenant)?;
        Ok(Self { fields, key, ..self })
    }
}

fn seal<T: Sealable>(value: Option<&T>, key: &RowKey) -> Result<Option<Sealed<T>>, SealError> {
    value.map(|value| Sealed::new(value, key)).transpose()
}

fn reseal<T: Sealable>(field: Option<&Sealed<T>>, old: &RowKey, new: &RowKey) -> Result<Option<Sealed<T>>, SealError> {
    field.map(|field| field.reseal(old, new)).transpose()
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
pub(in crate::store) struct CustomerRow {
    pub(in crate::store) id: Uuid,
    pub(in crate::store) name: String,
    pub(in crate::store) email: Vec<u8>,
    pub(in crate::store) phone: Option<Vec<u8>>,
    pub(in crate::store) tax_id: Option<Vec<u8>>,
    pub(in crate::store) bank_account: Option<Vec<u8>>,
    pub(in crate::store) address: Option<Vec<u8>>,
    /// `None`, as is `index_key`, if the data keys of the tenant are destroyed.
    pub(in crate::store) email_index: Option<Vec<u8>>,
    pub(in crate::store) tax_id_index: Option<Vec<u8>>,
    pub(in crate::store) index_key: Option<i32>,
    pub(in crate::store) data_key: i32,
    pub(in crate::store) wrapped_key: Vec<u8>,
    pub(in crate::store) created_by: String,
    pub(in crate::store) created_at: DateTime<Utc>,
    pub(in crate::store) updated_at: DateTime<Utc>,
}

impl CustomerRow {
    /// Unwraps the row key with the data key that wraps it, which may have to be fetched.
    ///
    /// The tenant is the caller's, whatever the row says: a row of another tenant does not open,
    /// even if a statement finds it (CRYPTO-03).
    pub(super) async fn open(self, keyring: &Keyring, tenant: TenantId) -> Result<CustomerRecord, DbError> {
        let data_key = keyring.fetch(tenant, self.data_key).await?;
        self.open_with(&data_key, tenant)
    }

    /// Unwraps the row key with a data key at hand.
    pub(in crate::store) fn open_with(self, data_key: &DataKey, tenant: TenantId) -> Result<CustomerRecord, DbError> {
        let (email_index, index_key) = self.email_index.zip(self.index_key).ok_or(DbError::KeyDestroyed)?;
        let key = unwrap_row_key(data_key, tenant, (TABLE, self.id), self.wrapped_key)?;
        Ok(CustomerRecord {
            id: CustomerId::from_uuid(self.id),
            tenant,
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
