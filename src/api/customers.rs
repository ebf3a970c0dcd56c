use std::{str::FromStr, sync::Arc};

use chrono::{DateTime, Utc};
use poem::Result;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
    types::{Example, MaybeUndefined},
};
use uuid::Uuid;

use super::{
    Context, Tag, changed,
    created::Created,
    faults::Faults,
    paging::Paging,
    strict_json::StrictJson,
    text::{Text, form},
};
use crate::{
    authz::{
        MaySee, Permit,
        actions::{CreateCustomer, EraseCustomer, GetCustomer, ListCustomers, UpdateCustomer},
    },
    crypto::{RowKey, Sealable, Sealed},
    domain::{Customer, CustomerChange, CustomerData, CustomerId, Email, FieldChange, TaxId},
    problem::{Kind, Problem},
    store::{CustomerFilter, Position, StoreError},
};

pub(super) struct Customers(pub(super) Arc<Context>);

// None of these has `Debug`: they hold what must not be printed.

/// A customer to add.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
struct NewCustomer {
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
struct CustomerPatch {
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
struct CustomerView {
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

/// One page of customers, newest first.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CustomerPage {
    /// The customers of the page.
    #[oai(validator(max_items = 100))]
    items: Vec<CustomerView>,
    /// What to send as `cursor` for the next page; null on the last.
    #[oai(nullable)]
    next_cursor: Option<Text<form::Cursor>>,
}

#[derive(ApiResponse)]
enum Erased {
    /// It was erased.
    #[oai(status = 204)]
    NoContent,
}

#[OpenApi(tag = "Tag::Customers")]
impl Customers {
    /// Add a customer
    ///
    /// Fields about a person leave the service masked for most, in this answer for everyone.
    #[oai(path = "/v1/customers", method = "post", operation_id = "createCustomer")]
    async fn create(
        &self,
        permit: Permit<CreateCustomer>,
        /// Makes a repetition of the request safe: the work is done once, and the answer is the same.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<Text<form::IdempotencyKey>>>,
        body: StrictJson<NewCustomer>,
    ) -> Result<Created<CustomerView>> {
        let request = self.0.keyed::<CreateCustomer>(key.0, None, &body.canonical);
        let data = body.value.into_domain()?;
        let mut statements = self.0.database.statements(&permit).await?;
        if let Some(request) = &request
            && let Some(earlier) = Created::earlier(statements.earlier_answer(&permit, request).await?)?
        {
            return Ok(earlier);
        }
        let (tenant, subject) = (permit.tenant(), permit.principal().subject());
        let id = CustomerId::generate();
        let keys = (self.0.database.new_customer_key(&permit, id).await?, self.0.database.indexes());
        let customer = Customer::new(id, &data, keys, tenant, subject, self.0.clock.now())?;
        // What is stored for a repetition is the same for whoever repeats it.
        let created = Created::new(CustomerView::of(&customer, None)?, Some(location(customer.id)));
        let answer = created.answer();
        statements.add_customer(&permit, &customer, request.as_ref().map(|request| (request, &answer))).await?;
        changed(&permit, customer.id);
        Ok(created)
    }

    /// List customers
    ///
    /// Newest first. Fields about a person are masked for most.
    #[oai(path = "/v1/customers", method = "get", operation_id = "listCustomers")]
    async fn list(
        &self,
        permit: Permit<ListCustomers>,
        /// Only customers with exactly this e-mail address, whatever its case.
        email: Query<Option<Text<form::Email>>>,
        /// Only customers with exactly this tax identifier, whatever its case and hyphens. Not beside `email`.
        #[oai(name = "taxId")]
        tax_id: Query<Option<Text<form::TaxId>>>,
        /// Most items on the page.
        #[oai(default = "super::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the page before.
        cursor: Query<Option<Text<form::Cursor>>>,
    ) -> Result<Json<CustomerPage>> {
        let mut faults = Faults::default();
        let email: Option<Email> = faults.parse_optional("email", email.0.as_deref());
        let tax_id: Option<TaxId> = faults.parse_optional("taxId", tax_id.0.as_deref());
        let filter = match (email, tax_id) {
            (None, None) => CustomerFilter::None,
            (Some(email), None) => CustomerFilter::Email(email),
            (None, Some(tax_id)) => CustomerFilter::TaxId(tax_id),
            (Some(_), Some(_)) => {
                faults.note("taxId", "not_combinable", Err::<(), ()>(()));
                CustomerFilter::None
            }
        };
        let filter = faults.finish(Some(filter))?;
        let paging = Paging::new(&self.0.mac_key, "customers", permit.tenant(), limit.0);
        let from = paging.open(cursor.0.as_deref())?.unwrap_or_else(Position::start);
        let mut tx = self.0.database.read(&permit).await?;
        let mut customers = tx.customers(from, &filter, paging.read_ahead()).await?;
        let position = |customer: &Customer| Position { at: customer.created_at, id: customer.id.uuid() };
        let next_cursor = paging.cut(&mut customers, |customer| position(customer).to_string());
        let may_see = permit.may_see();
        let items = customers.iter().map(|customer| CustomerView::of(customer, may_see.as_ref()));
        Ok(Json(CustomerPage { items: items.collect::<Result<_, _>>()?, next_cursor }))
    }

    /// Get one customer
    ///
    /// Fields about a person are masked for most.
    #[oai(path = "/v1/customers/:id", method = "get", operation_id = "getCustomer")]
    async fn get(&self, permit: Permit<GetCustomer>, id: Path<CustomerId>) -> Result<Json<CustomerView>> {
        let customer = self.0.database.customer(&permit, id.0).await?;
        let customer = customer.ok_or_else(|| Problem::new(Kind::NotFound))?;
        Ok(Json(CustomerView::of(&customer, permit.may_see().as_ref())?))
    }

    /// Change a customer
    ///
    /// What is absent stays, null empties.
    #[oai(path = "/v1/customers/:id", method = "patch", operation_id = "updateCustomer")]
    async fn update(
        &self,
        permit: Permit<UpdateCustomer>,
        id: Path<CustomerId>,
        body: StrictJson<CustomerPatch>,
    ) -> Result<Json<CustomerView>> {
        let change = body.value.into_domain()?;
        let mut tx = self.0.database.write(&permit).await?;
        let found = tx.lock_customer(id.0).await?;
        let customer = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&customer)?;
        let customer = customer.changed(change, self.0.database.indexes(), self.0.clock.now())?;
        tx.update_customer(&narrowed, &customer).await?;
        tx.commit().await?;
        changed(&permit, customer.id);
        Ok(Json(CustomerView::of(&customer, permit.may_see().as_ref())?))
    }

    /// Erase a customer
    ///
    /// The customer's data is gone; orders and invoices remain, and what people wrote on them.
    #[oai(path = "/v1/customers/:id", method = "delete", operation_id = "eraseCustomer")]
    async fn erase(&self, permit: Permit<EraseCustomer>, id: Path<CustomerId>) -> Result<Erased> {
        let mut tx = self.0.database.write(&permit).await?;
        let found = tx.lock_erasable(id.0).await?;
        let customer = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&customer)?;
        tx.erase_customer(&narrowed, &location(customer.id), self.0.clock.now()).await?;
        tx.commit().await?;
        changed(&permit, customer.id);
        Ok(Erased::NoContent)
    }
}

fn location(id: CustomerId) -> String {
    format!("/v1/customers/{id}")
}

impl NewCustomer {
    fn into_domain(self) -> Result<CustomerData, Problem> {
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
    fn into_domain(self) -> Result<CustomerChange, Problem> {
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
    fn of(customer: &Customer, may_see: Option<&MaySee>) -> Result<Self, StoreError> {
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
