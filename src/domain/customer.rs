//! Customers of a tenant in plain text, and merge patches of them.
//!
//! [`crate::api`] parses them from requests. [`palisade::store::CustomerRecord`] is the stored, sealed
//! form.

use palisade::model::{Name, TenantId};

use super::{Address, BankAccount, CustomerId, Email, Phone, TaxId};

/// The data of a customer in plain text.
#[derive(Clone, Debug)]
pub struct CustomerData {
    /// Display name. It is not sealed.
    pub name: Name,
    /// E-mail address.
    pub email: Email,
    /// Telephone number.
    pub phone: Option<Phone>,
    /// Tax identifier, for invoices.
    pub tax_id: Option<TaxId>,
    /// Bank account, for payments and refunds.
    pub bank_account: Option<BankAccount>,
    /// Postal address.
    pub address: Option<Address>,
}

/// A customer that exists, without its data: object rules and erasure need no key.
#[derive(Clone, Copy, Debug)]
pub struct CustomerRef {
    /// Identifier of the customer.
    pub id: CustomerId,
    /// Tenant of the customer.
    pub tenant: TenantId,
}

/// A change of an optional field in a merge patch (RFC 7396).
#[derive(Clone, Debug, Default)]
pub enum FieldChange<T> {
    /// The field is omitted: keep the value.
    #[default]
    Keep,
    /// The field is `null`: clear the value.
    Clear,
    /// Set a new value.
    Set(T),
}

/// A change of a customer. `None` and [`FieldChange::Keep`] leave a field as it is.
#[derive(Clone, Debug, Default)]
pub struct CustomerChange {
    /// New display name. It cannot be cleared.
    pub name: Option<Name>,
    /// New e-mail address. It cannot be cleared.
    pub email: Option<Email>,
    /// Telephone number.
    pub phone: FieldChange<Phone>,
    /// Tax identifier.
    pub tax_id: FieldChange<TaxId>,
    /// Bank account.
    pub bank_account: FieldChange<BankAccount>,
    /// Postal address.
    pub address: FieldChange<Address>,
}

impl CustomerChange {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        use FieldChange::Keep;
        matches!(self, Self { name: None, email: None, phone: Keep, tax_id: Keep, bank_account: Keep, address: Keep })
    }
}
