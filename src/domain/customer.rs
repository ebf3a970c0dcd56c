use chrono::{DateTime, Utc};

use super::{Address, BankAccount, CustomerId, Email, Name, Phone, TaxId, TenantId, TenantObject};

/// What is known about a customer of a tenant.
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

/// A customer as it is stored. An erased one is not a customer any more: only its identifier remains.
#[derive(Clone, Debug)]
pub struct Customer {
    /// Its identifier.
    pub id: CustomerId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What is known.
    pub data: CustomerData,
    /// The `sub` of who added it.
    pub created_by: String,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
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
    fn apply(self, field: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *field = None,
            Self::Set(value) => *field = Some(value),
        }
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

impl Customer {
    /// A new customer.
    #[must_use]
    pub fn new(data: CustomerData, tenant: TenantId, created_by: &str, now: DateTime<Utc>) -> Self {
        let id = CustomerId::generate();
        Self { id, tenant, data, created_by: created_by.to_owned(), created_at: now, updated_at: now }
    }

    /// The customer with the change made.
    #[must_use]
    pub fn changed(mut self, change: CustomerChange, now: DateTime<Utc>) -> Self {
        let data = &mut self.data;
        data.name = change.name.unwrap_or_else(|| data.name.clone());
        data.email = change.email.unwrap_or_else(|| data.email.clone());
        change.phone.apply(&mut data.phone);
        change.tax_id.apply(&mut data.tax_id);
        change.bank_account.apply(&mut data.bank_account);
        change.address.apply(&mut data.address);
        self.updated_at = now;
        self
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
