//! What customers look like outside.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use poem_openapi::{
    Object,
    types::{Example, MaybeUndefined},
};
use uuid::Uuid;

use super::super::{
    faults::Faults,
    text::{Text, form},
};
use crate::{
    authz::MaySee,
    crypto::{RowKey, Sealable, Sealed},
    domain::{Customer, CustomerChange, CustomerData, FieldChange},
    problem::Problem,
    store::StoreError,
};

// None of these has `Debug`: they hold what must not be printed.

/// A customer to add.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct NewCustomer {
    /// For display.
    name: Text<form::Name>,
    /// E-mail address. Compared and stored in lower case.
    email: Text<form::Email>,
    /// Telephone number in international form, such as `+49 30 1234567`.
    phone: Option<Text<form::Phone>>,
    /// Tax identifier.
    tax_id: Option<Text<form::TaxId>>,
    /// International bank account number (IBAN), with or without spaces.
    bank_account: Option<Text<form::BankAccount>>,
    /// Postal address, in lines.
    address: Option<Text<form::Address>>,
}

/// What to change of a customer: what is absent stays, null empties.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct CustomerPatch {
    /// For display.
    #[oai(skip_serializing_if_is_none)]
    name: Option<Text<form::Name>>,
    /// E-mail address.
    #[oai(skip_serializing_if_is_none)]
    email: Option<Text<form::Email>>,
    /// Telephone number in international form.
    #[oai(nullable)]
    phone: MaybeUndefined<Text<form::Phone>>,
    /// Tax identifier.
    #[oai(nullable)]
    tax_id: MaybeUndefined<Text<form::TaxId>>,
    /// International bank account number (IBAN).
    #[oai(nullable)]
    bank_account: MaybeUndefined<Text<form::BankAccount>>,
    /// Postal address.
    #[oai(nullable)]
    address: MaybeUndefined<Text<form::Address>>,
}

/// A customer. Fields about the person are masked, so that at most their last four characters show, unless a person with
/// the role billing, auditor or admin asks.
#[derive(Object)]
#[oai(rename_all = "camelCase", rename = "Customer")]
pub(super) struct CustomerView {
    /// Its identifier, a `UUIDv7`.
    id: Uuid,
    /// For display.
    name: Text<form::Name>,
    /// Whether the fields below are masked.
    masked: bool,
    /// E-mail address.
    email: Text<form::Shown>,
    /// Telephone number.
    #[oai(skip_serializing_if_is_none)]
    phone: Option<Text<form::Shown>>,
    /// Tax identifier.
    #[oai(skip_serializing_if_is_none)]
    tax_id: Option<Text<form::Shown>>,
    /// International bank account number.
    #[oai(skip_serializing_if_is_none)]
    bank_account: Option<Text<form::Shown>>,
    /// Postal address.
    #[oai(skip_serializing_if_is_none)]
    address: Option<Text<form::Shown>>,
    /// The `sub` of who added it.
    created_by: Text<form::Subject>,
    /// When it was added.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

impl NewCustomer {
    pub(super) fn into_domain(self) -> Result<CustomerData, Problem> {
        let mut faults = Faults::default();
        let name = faults.parse("/name", &self.name);
        let email = faults.parse("/email", &self.email);
        let phone = faults.parse_optional("/phone", self.phone.as_deref());
        let tax_id = faults.parse_optional("/taxId", self.tax_id.as_deref());
        let bank_account = faults.parse_optional("/bankAccount", self.bank_account.as_deref());
        let address = faults.parse_optional("/address", self.address.as_deref());
        let whole = || Some(CustomerData { name: name?, email: email?, phone, tax_id, bank_account, address });
        let whole = whole();
        faults.finish(whole)
    }
}

impl CustomerPatch {
    pub(super) fn into_domain(self) -> Result<CustomerChange, Problem> {
        let mut faults = Faults::default();
        let change = CustomerChange {
            name: self.name.and_then(|text| faults.parse("/name", &text)),
            email: self.email.and_then(|text| faults.parse("/email", &text)),
            phone: change(&mut faults, "/phone", self.phone),
            tax_id: change(&mut faults, "/taxId", self.tax_id),
            bank_account: change(&mut faults, "/bankAccount", self.bank_account),
            address: change(&mut faults, "/address", self.address),
        };
        faults.finish(Some(change))
    }
}

fn change<F, T: FromStr>(faults: &mut Faults, at: &str, field: MaybeUndefined<Text<F>>) -> FieldChange<T> {
    match field {
        MaybeUndefined::Undefined => FieldChange::Keep,
        MaybeUndefined::Null => FieldChange::Clear,
        // A fault spoils the whole change, so what stands for the field does not matter.
        MaybeUndefined::Value(text) => faults.parse(at, &text).map_or(FieldChange::Keep, FieldChange::Set),
    }
}

impl CustomerView {
    /// As it looks to who may see fields about a person, or to everybody else.
    pub(super) fn of(customer: &Customer, may_see: Option<&MaySee>) -> Result<Self, StoreError> {
        let (data, key) = (&customer.data, &customer.key);
        Ok(Self {
            id: customer.id.uuid(),
            name: data.name.as_str().into(),
            masked: may_see.is_none(),
            email: shown(&data.email, key, may_see)?,
            phone: data.phone.as_ref().map(|field| shown(field, key, may_see)).transpose()?,
            tax_id: data.tax_id.as_ref().map(|field| shown(field, key, may_see)).transpose()?,
            bank_account: data.bank_account.as_ref().map(|field| shown(field, key, may_see)).transpose()?,
            address: data.address.as_ref().map(|field| shown(field, key, may_see)).transpose()?,
            created_by: customer.created_by.clone().into(),
            created_at: customer.created_at,
            updated_at: customer.updated_at,
        })
    }
}

fn shown<T: Sealable>(
    field: &Sealed<T>,
    key: &RowKey,
    may_see: Option<&MaySee>,
) -> Result<Text<form::Shown>, StoreError> {
    Ok(match may_see {
        Some(may_see) => field.open(key, may_see)?.plain().into(),
        None => field.masked(key)?.into(),
    })
}

impl Example for NewCustomer {
    fn example() -> Self {
        Self {
            name: "Initech".into(),
            email: "billing@initech.example".into(),
            phone: Some("+49 30 1234567".into()),
            tax_id: Some("DE123456789".into()),
            bank_account: Some("DE89 3704 0044 0532 0130 00".into()),
            address: Some("1 Main Street\n10115 Berlin".into()),
        }
    }
}

impl Example for CustomerPatch {
    fn example() -> Self {
        Self {
            name: Some("Initech Ltd".into()),
            email: None,
            phone: MaybeUndefined::Null,
            tax_id: MaybeUndefined::Undefined,
            bank_account: MaybeUndefined::Undefined,
            address: MaybeUndefined::Value("2 Main Street\n10115 Berlin".into()),
        }
    }
}
