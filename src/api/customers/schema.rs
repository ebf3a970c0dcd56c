//! Schemas of customers, and the conversions from and to the domain (AUTHZ-06).
//!
//! Requests become domain types with all field errors at once. Responses show the personal fields
//! in plain text or masked, as the caller's [`PersonalDataAccess`] decides. The types hold personal
//! data and have no `Debug`.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use palisade::{
    crypto::{PersonalDataAccess, RowKey, Sealable, Sealed},
    http::{field_errors::FieldErrors, paging::Paging, text::Text},
    problem::Problem,
    store::{DbError, Listed},
};
use poem_openapi::{
    Object,
    types::{Example, MaybeUndefined},
};
use uuid::Uuid;

use crate::{
    api::formats,
    domain::{CustomerChange, CustomerData, FieldChange},
    store::customers::{CustomerFilter, CustomerRecord},
};

/// Customer to create.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct NewCustomer {
    /// Display name, 1 to 200 characters. Never masked.
    name: Text<formats::Name>,
    /// E-mail address, 3 to 254 ASCII characters, with internationalised domains in their `xn--`
    /// form (RFC 5890). Stored in lower case.
    email: Text<formats::Email>,
    /// Telephone number (ITU-T E.164): `+` and 7 to 15 digits. Spaces, hyphens and parentheses
    /// between them are ignored.
    phone: Option<Text<formats::Phone>>,
    /// Tax identifier: 4 to 20 letters, digits and hyphens. Stored in upper case.
    tax_id: Option<Text<formats::TaxId>>,
    /// International bank account number (IBAN, ISO 13616), with or without spaces. Wrong check
    /// digits fail with 422.
    bank_account: Option<Text<formats::BankAccount>>,
    /// Postal address, 1 to 300 characters with line breaks.
    address: Option<Text<formats::Address>>,
}

/// Changes to a customer. Omitted fields keep their value; `null` clears a field (RFC 7396).
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct CustomerPatch {
    /// Display name, 1 to 200 characters. Cannot be cleared.
    #[oai(skip_serializing_if_is_none)]
    name: Option<Text<formats::Name>>,
    /// E-mail address, 3 to 254 ASCII characters. Cannot be cleared.
    #[oai(skip_serializing_if_is_none)]
    email: Option<Text<formats::Email>>,
    /// Telephone number (ITU-T E.164): `+` and 7 to 15 digits. `null` clears it.
    #[oai(nullable)]
    phone: MaybeUndefined<Text<formats::Phone>>,
    /// Tax identifier: 4 to 20 letters, digits and hyphens. `null` clears it.
    #[oai(nullable)]
    tax_id: MaybeUndefined<Text<formats::TaxId>>,
    /// International bank account number (IBAN, ISO 13616). `null` clears it.
    #[oai(nullable)]
    bank_account: MaybeUndefined<Text<formats::BankAccount>>,
    /// Postal address, 1 to 300 characters with line breaks. `null` clears it.
    #[oai(nullable)]
    address: MaybeUndefined<Text<formats::Address>>,
}

/// What to search customers by: one of `email` and `taxId`.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct CustomerSearch {
    /// Whole e-mail address, case-insensitive. Not together with `taxId`.
    #[oai(skip_serializing_if_is_none)]
    email: Option<Text<formats::Email>>,
    /// Whole tax identifier; case and hyphens are ignored. Not together with `email`.
    #[oai(skip_serializing_if_is_none)]
    tax_id: Option<Text<formats::TaxId>>,
    /// Maximum number of items on the page: 1 to 100, default 20.
    #[oai(default = "palisade::http::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
    pub(super) limit: i64,
    /// `nextCursor` of the previous page. Omit it for the first page.
    #[oai(skip_serializing_if_is_none)]
    pub(super) cursor: Option<Text<formats::Cursor>>,
}

/// One page of customers, newest first.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct CustomerPage {
    /// Customers of the page, at most 100.
    #[oai(validator(max_items = 100))]
    items: Vec<CustomerView>,
    /// Ids of customers of the page whose stored data does not decrypt. They are not in `items`, and
    /// `getCustomer` fails with 500 for them. Empty unless stored data or keys are damaged.
    #[oai(validator(max_items = 100))]
    unreadable: Vec<Uuid>,
    /// Cursor of the next page, to send as `cursor`; `null` on the last page.
    #[oai(nullable)]
    next_cursor: Option<Text<formats::Cursor>>,
}

/// A customer. The personal fields `email`, `phone`, `taxId`, `bankAccount` and `address` are
/// masked unless a user with the role `billing`, `auditor` or `admin` reads the customer by its id.
/// A masked field is `****` and at most the last four characters of the value.
#[derive(Object)]
#[oai(rename_all = "camelCase", rename = "Customer")]
pub(super) struct CustomerView {
    /// Customer id (UUIDv7, RFC 9562).
    id: Uuid,
    /// Display name.
    name: Text<formats::Name>,
    /// Whether this response masks the personal fields.
    masked: bool,
    /// E-mail address in lower case, or its masked form.
    email: Text<formats::MaybeMasked>,
    /// Telephone number (ITU-T E.164), or its masked form; absent if there is none.
    #[oai(skip_serializing_if_is_none)]
    phone: Option<Text<formats::MaybeMasked>>,
    /// Tax identifier in upper case, or its masked form; absent if there is none.
    #[oai(skip_serializing_if_is_none)]
    tax_id: Option<Text<formats::MaybeMasked>>,
    /// IBAN (ISO 13616) without spaces, or its masked form; absent if there is none.
    #[oai(skip_serializing_if_is_none)]
    bank_account: Option<Text<formats::MaybeMasked>>,
    /// Postal address, or its masked form; absent if there is none.
    #[oai(skip_serializing_if_is_none)]
    address: Option<Text<formats::MaybeMasked>>,
    /// Subject of the caller that created the customer.
    created_by: Text<formats::Subject>,
    /// Time of creation (RFC 3339, UTC).
    created_at: DateTime<Utc>,
    /// Time of the last change (RFC 3339, UTC).
    updated_at: DateTime<Utc>,
}

impl NewCustomer {
    pub(super) fn into_domain(self) -> Result<CustomerData, Problem> {
        let mut errors = FieldErrors::default();
        let name = errors.parse("/name", &self.name);
        let email = errors.parse("/email", &self.email);
        let phone = errors.parse_optional("/phone", self.phone.as_deref());
        let tax_id = errors.parse_optional("/taxId", self.tax_id.as_deref());
        let bank_account = errors.parse_optional("/bankAccount", self.bank_account.as_deref());
        let address = errors.parse_optional("/address", self.address.as_deref());
        let data = match (name, email) {
            (Some(name), Some(email)) => Some(CustomerData { name, email, phone, tax_id, bank_account, address }),
            _ => None,
        };
        errors.finish(data)
    }
}

impl CustomerPatch {
    pub(super) fn into_domain(self) -> Result<CustomerChange, Problem> {
        let mut errors = FieldErrors::default();
        let change = CustomerChange {
            name: self.name.and_then(|text| errors.parse("/name", &text)),
            email: self.email.and_then(|text| errors.parse("/email", &text)),
            phone: parse_change(&mut errors, "/phone", self.phone),
            tax_id: parse_change(&mut errors, "/taxId", self.tax_id),
            bank_account: parse_change(&mut errors, "/bankAccount", self.bank_account),
            address: parse_change(&mut errors, "/address", self.address),
        };
        errors.finish(Some(change))
    }
}

fn parse_change<F, T: FromStr>(
    errors: &mut FieldErrors,
    pointer: &str,
    field: MaybeUndefined<Text<F>>,
) -> FieldChange<T> {
    match field {
        MaybeUndefined::Undefined => FieldChange::Keep,
        MaybeUndefined::Null => FieldChange::Clear,
        // A field error rejects the whole change, so the fallback is never applied.
        MaybeUndefined::Value(text) => errors.parse(pointer, &text).map_or(FieldChange::Keep, FieldChange::Set),
    }
}

impl CustomerSearch {
    pub(super) fn filter(&self) -> Result<CustomerFilter, Problem> {
        let mut errors = FieldErrors::default();
        let filter = match (&self.email, &self.tax_id) {
            (Some(email), None) => errors.parse("/email", email).map(CustomerFilter::Email),
            (None, Some(tax_id)) => errors.parse("/taxId", tax_id).map(CustomerFilter::TaxId),
            (Some(_), Some(_)) => errors.note("/taxId", "not_combinable", Err(())),
            (None, None) => errors.note("/email", "required", Err(())),
        };
        errors.finish(filter)
    }
}

impl CustomerPage {
    /// Renders a page, masked for every caller: plain text is read one customer at a time.
    pub(super) fn new(mut customers: Vec<Listed<CustomerRecord>>, paging: &Paging<'_>) -> Result<Self, DbError> {
        let next_cursor = paging.cut(&mut customers, |customer| customer.position().to_string());
        let (items, unreadable) = Listed::render(&customers, |customer| CustomerView::new(customer, None))?;
        Ok(Self { items, unreadable, next_cursor })
    }
}

impl CustomerView {
    /// Renders a customer: in plain text with access to personal data, else masked.
    pub(super) fn new(customer: &CustomerRecord, access: Option<&PersonalDataAccess>) -> Result<Self, DbError> {
        let fields = &customer.fields;
        let key = &customer.key;
        Ok(Self {
            id: customer.id.uuid(),
            name: fields.name.as_str().into(),
            masked: access.is_none(),
            email: render(&fields.email, key, access)?,
            phone: render_optional(fields.phone.as_ref(), key, access)?,
            tax_id: render_optional(fields.tax_id.as_ref(), key, access)?,
            bank_account: render_optional(fields.bank_account.as_ref(), key, access)?,
            address: render_optional(fields.address.as_ref(), key, access)?,
            created_by: customer.created_by.clone().into(),
            created_at: customer.created_at,
            updated_at: customer.updated_at,
        })
    }
}

fn render<T: Sealable>(
    field: &Sealed<T>,
    key: &RowKey,
    access: Option<&PersonalDataAccess>,
) -> Result<Text<formats::MaybeMasked>, DbError> {
    Ok(match access {
        Some(access) => field.open(key, access)?.plain(access).into(),
        None => field.masked(key)?.into(),
    })
}

fn render_optional<T: Sealable>(
    field: Option<&Sealed<T>>,
    key: &RowKey,
    access: Option<&PersonalDataAccess>,
) -> Result<Option<Text<formats::MaybeMasked>>, DbError> {
    field.map(|field| render(field, key, access)).transpose()
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

impl Example for CustomerSearch {
    fn example() -> Self {
        Self { email: Some("billing@initech.example".into()), tax_id: None, limit: 20, cursor: None }
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
