use chrono::{DateTime, Utc};

use super::{Address, BankAccount, CustomerId, Email, Name, Phone, TaxId, TenantId, TenantObject};
use crate::crypto::{BlindIndex, IndexKeys, RowKey, SealError, Sealable, Sealed};

/// What somebody says about a customer of a tenant.
#[derive(Clone, Debug)]
pub struct CustomerData {
    /// For display.
    pub name: Name,
    /// Where to write to.
    pub email: Email,
    /// Where to call.
    pub phone: Option<Phone>,
    /// For invoices.
    pub tax_id: Option<TaxId>,
    /// Where money comes from and goes back to.
    pub bank_account: Option<BankAccount>,
    /// Where goods go.
    pub address: Option<Address>,
}

/// The same as it is stored, sealed but for the name.
#[derive(Debug)]
pub struct SealedData {
    /// For display.
    pub name: Name,
    /// Where to write to.
    pub email: Sealed<Email>,
    /// Where to call.
    pub phone: Option<Sealed<Phone>>,
    /// For invoices.
    pub tax_id: Option<Sealed<TaxId>>,
    /// Where money comes from and goes back to.
    pub bank_account: Option<Sealed<BankAccount>>,
    /// Where goods go.
    pub address: Option<Sealed<Address>>,
    /// By which the e-mail address is found.
    pub email_index: BlindIndex,
    /// By which the tax identifier is found.
    pub tax_id_index: Option<BlindIndex>,
}

/// A customer as it is stored. An erased one is not a customer any more: only its identifier remains.
#[derive(Debug)]
pub struct Customer {
    /// Its identifier.
    pub id: CustomerId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What is known.
    pub data: SealedData,
    /// What opens it. Erasing destroys it.
    pub key: RowKey,
    /// The `sub` of who added it.
    pub created_by: String,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// A customer to be forgotten: that takes no key, and works for one that nobody can read any more.
#[derive(Clone, Copy, Debug)]
pub struct ErasableCustomer {
    /// Its identifier.
    pub id: CustomerId,
    /// Whose it is.
    pub tenant: TenantId,
}

/// What to do with a field that need not be there (RFC 7396).
#[derive(Clone, Debug, Default)]
pub enum FieldChange<T> {
    /// Leave it as it is.
    #[default]
    Keep,
    /// Empty it.
    Clear,
    /// Set it.
    Set(T),
}

impl<T> FieldChange<T> {
    fn apply(self, field: &mut Option<Sealed<T>>, key: &RowKey) -> Result<(), SealError>
    where
        T: Sealable,
    {
        match self {
            Self::Keep => {}
            Self::Clear => *field = None,
            Self::Set(value) => *field = Some(Sealed::new(&value, key)?),
        }
        Ok(())
    }
}

/// What to change of a customer.
#[derive(Clone, Debug, Default)]
pub struct CustomerChange {
    /// The name, which cannot be emptied; `None` leaves it.
    pub name: Option<Name>,
    /// The e-mail address, which cannot be emptied; `None` leaves it.
    pub email: Option<Email>,
    /// The telephone number.
    pub phone: FieldChange<Phone>,
    /// The tax identifier.
    pub tax_id: FieldChange<TaxId>,
    /// The bank account.
    pub bank_account: FieldChange<BankAccount>,
    /// The address.
    pub address: FieldChange<Address>,
}

impl CustomerData {
    /// Sealed with the key of a customer, with indexes.
    fn seal(&self, key: &RowKey, indexes: &IndexKeys, tenant: TenantId) -> Result<SealedData, SealError> {
        Ok(SealedData {
            name: self.name.clone(),
            email: Sealed::new(&self.email, key)?,
            phone: seal(self.phone.as_ref(), key)?,
            tax_id: seal(self.tax_id.as_ref(), key)?,
            bank_account: seal(self.bank_account.as_ref(), key)?,
            address: seal(self.address.as_ref(), key)?,
            email_index: indexes.index(tenant.uuid(), &self.email),
            tax_id_index: self.tax_id.as_ref().map(|tax_id| indexes.index(tenant.uuid(), tax_id)),
        })
    }
}

fn seal<T: Sealable>(value: Option<&T>, key: &RowKey) -> Result<Option<Sealed<T>>, SealError> {
    value.map(|value| Sealed::new(value, key)).transpose()
}

impl Customer {
    /// A new customer with this id, whose key it is.
    pub fn new(
        id: CustomerId,
        data: &CustomerData,
        (key, indexes): (RowKey, &IndexKeys),
        tenant: TenantId,
        created_by: &str,
        now: DateTime<Utc>,
    ) -> Result<Self, SealError> {
        let data = data.seal(&key, indexes, tenant)?;
        Ok(Self { id, tenant, data, key, created_by: created_by.to_owned(), created_at: now, updated_at: now })
    }

    /// The customer with the change made. What stays is not opened.
    pub fn changed(
        mut self,
        change: CustomerChange,
        indexes: &IndexKeys,
        now: DateTime<Utc>,
    ) -> Result<Self, SealError> {
        let (data, key, tenant) = (&mut self.data, &self.key, self.tenant.uuid());
        if let Some(name) = change.name {
            data.name = name;
        }
        if let Some(email) = change.email {
            data.email_index = indexes.index(tenant, &email);
            data.email = Sealed::new(&email, key)?;
        }
        match &change.tax_id {
            FieldChange::Keep => {}
            FieldChange::Clear => data.tax_id_index = None,
            FieldChange::Set(tax_id) => data.tax_id_index = Some(indexes.index(tenant, tax_id)),
        }
        change.phone.apply(&mut data.phone, key)?;
        change.tax_id.apply(&mut data.tax_id, key)?;
        change.bank_account.apply(&mut data.bank_account, key)?;
        change.address.apply(&mut data.address, key)?;
        self.updated_at = now;
        Ok(self)
    }
}

impl TenantObject for Customer {
    type Id = CustomerId;

    fn id(&self) -> CustomerId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }
}

impl TenantObject for ErasableCustomer {
    type Id = CustomerId;

    fn id(&self) -> CustomerId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }
}
