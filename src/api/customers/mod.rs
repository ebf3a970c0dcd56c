mod schema;

use std::sync::Arc;

use poem::Result;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};

use super::{
    Context, Tag,
    created::Created,
    faults::Faults,
    paging::Paging,
    strict_json::StrictJson,
    text::{Text, form},
};
use crate::{
    authz::{
        Action, MaySee, Permit,
        actions::{CreateCustomer, EraseCustomer, GetCustomer, ListCustomers, UpdateCustomer},
    },
    domain::{Customer, CustomerId, Email, TaxId},
    problem::{Kind, Problem},
    store::{CustomerFilter, Position},
};
use schema::{CustomerPatch, CustomerView, NewCustomer};

pub(super) struct Customers(pub(super) Arc<Context>);

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
        let (tenant, subject) = (permit.tenant(), permit.principal().subject());
        let id = CustomerId::generate();
        // Before a connection is taken: it must not wait for whoever keeps the master key.
        let (key, indexes) = (self.0.database.new_customer_key(&permit, id).await?, self.0.database.indexes());
        let mut statements = self.0.database.statements(&permit).await?;
        if let Some(request) = &request
            && let Some(earlier) = Created::earlier(statements.earlier_answer(&permit, request).await?)?
        {
            return Ok(earlier);
        }
        let customer = Customer::new(id, &data, (key, &indexes), tenant, subject, self.0.clock.now())?;
        // What is stored for a repetition is the same for whoever repeats it.
        let created = Created::new(CustomerView::of(&customer, None)?, Some(location(customer.id)));
        let answer = created.answer();
        statements.add_customer(&permit, &customer, request.as_ref().map(|request| (request, &answer))).await?;
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
        let tx = self.0.database.read(&permit).await?;
        let mut customers = tx.customers(from, &filter, paging.read_ahead()).await?;
        let position = |customer: &Customer| Position { at: customer.created_at, id: customer.id.uuid() };
        let next_cursor = paging.cut(&mut customers, |customer| position(customer).to_string());
        let may_see = permit.may_see();
        self.seen(&permit, may_see.as_ref(), customers.len());
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
        let may_see = permit.may_see();
        self.seen(&permit, may_see.as_ref(), 1);
        Ok(Json(CustomerView::of(&customer, may_see.as_ref())?))
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
        let (mut tx, found) = self.0.database.lock_customer(&permit, id.0).await?;
        let customer = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&customer)?;
        let customer = customer.changed(change, &self.0.database.indexes(), self.0.clock.now())?;
        tx.update_customer(&narrowed, &customer).await?;
        tx.commit(&permit, customer.id).await?;
        let may_see = permit.may_see();
        self.seen(&permit, may_see.as_ref(), 1);
        Ok(Json(CustomerView::of(&customer, may_see.as_ref())?))
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
        tx.commit(&permit, customer.id).await?;
        Ok(Erased::NoContent)
    }
}

impl Customers {
    /// Notes how many customers somebody is about to see in plain text.
    fn seen<A: Action>(&self, permit: &Permit<A>, may_see: Option<&MaySee>, customers: usize) {
        if may_see.is_some() {
            self.0.watch.shown(permit, customers);
        }
    }
}

fn location(id: CustomerId) -> String {
    format!("/v1/customers/{id}")
}
