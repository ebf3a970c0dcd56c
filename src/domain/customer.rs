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

/// What to change: `None` leaves a field as it is, `Some(None)` empties it (RFC 7396).
#[derive(Clone, Debug, Default)]
pub struct CustomerChange {
    /// The name, which cannot be emptied.
    pub name: Option<Name>,
    /// The e-mail address, which cannot be emptied.
    pub email: Option<Email>,
    /// The telephone number.
    pub phone: Option<Option<Phone>>,
    /// The tax identifier.
    pub tax_id: Option<Option<TaxId>>,
    /// The bank account.
    pub bank_account: Option<Option<BankAccount>>,
    /// The address.
    pub address: Option<Option<Address>>,
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
        data.name = change.name.unwrap_or(data.name.clone());
        data.email = change.email.unwrap_or(data.email.clone());
        data.phone = change.phone.unwrap_or(data.phone.take());
        data.tax_id = change.tax_id.unwrap_or(data.tax_id.take());
        data.bank_account = change.bank_account.unwrap_or(data.bank_account.take());
        data.address = change.address.unwrap_or(data.address.take());
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
