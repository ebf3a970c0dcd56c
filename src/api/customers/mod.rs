//! Operations on customers: create, list, search, get, update, erase (AUTHZ-06, CRYPTO-07).
//!
//! Personal fields are stored encrypted. They leave masked, unless one customer is read with
//! [`PersonalDataAccess`](palisade::crypto::PersonalDataAccess). Customers are found by whole e-mail
//! addresses or tax identifiers only, through blind indexes. Every such read, and every search that
//! finds a customer, goes to the personal data monitor.

mod schema;

use std::sync::Arc;

use palisade::{
    authz::Permit,
    http::{Context, idempotency::Created, paging::Paging, strict_json::StrictJson, text::Text},
    problem::{Kind, Problem},
    store::Position,
};
use poem::Result;
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use schema::{CustomerPage, CustomerPatch, CustomerSearch, CustomerView, NewCustomer};

use super::Tag;
use crate::{
    access::actions::{CreateCustomer, EraseCustomer, GetCustomer, ListCustomers, SearchCustomers, UpdateCustomer},
    api::formats,
    domain::{CustomerId, CustomerRef},
    store::customers::{self, CustomerRecord, CustomerTable},
};

pub(crate) struct Customers {
    pub(crate) context: Arc<Context>,
}

#[derive(ApiResponse)]
enum Erased {
    /// The customer is erased.
    #[oai(status = 204)]
    NoContent,
}

#[OpenApi(tag = "Tag::Customers")]
impl Customers {
    /// Create a customer
    ///
    /// Creates a customer and stores its personal fields encrypted. This response always masks
    /// them, so that every retry with the same idempotency key returns the same response. A retry
    /// after the customer was erased fails with 409 (`conflict`).
    #[oai(path = "/v1/customers", method = "post", operation_id = "createCustomer")]
    async fn create(
        &self,
        permit: &Permit<CreateCustomer>,
        /// Idempotency key, 1 to 255 visible ASCII characters. Retries with the same key return the
        /// first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<Text<formats::IdempotencyKey>>>,
        body: StrictJson<NewCustomer>,
    ) -> Result<Created<CustomerView>> {
        let request = self.context.idempotent::<CreateCustomer>(idempotency_key.0, None, &body.canonical);
        let data = body.value.into_domain()?;
        let id = CustomerId::generate();
        // May wait for the vault that holds the master key, so it precedes taking a connection. An
        // error waits until it is clear that this is no retry.
        let row_key = self.context.database.new_row_key::<CustomerTable>(permit, id.uuid()).await;
        let indexes = self.context.database.indexes();
        let mut statements = self.context.database.statements(permit).await?;
        if let Some(request) = &request
            && let Some(outcome) = statements.stored_outcome(permit, request).await?
        {
            return Ok(Created::replay(outcome)?);
        }
        let subject = permit.principal().subject();
        let now = self.context.clock.now();
        let customer = CustomerRecord::new(id, &data, row_key?, &indexes, permit.tenant(), subject, now)?;
        // Stored for retries, so it is masked regardless of the caller's roles.
        let created = Created::new(&CustomerView::new(&customer, None)?, Some(location(customer.id)));
        let keyed = request.as_ref().map(|request| (request, created.stored()));
        customers::create(statements, permit, &customer, keyed).await?;
        Ok(created)
    }

    /// List customers
    ///
    /// Lists the customers of the tenant, newest first, with personal fields masked.
    #[oai(path = "/v1/customers", method = "get", operation_id = "listCustomers")]
    async fn list(
        &self,
        permit: &Permit<ListCustomers>,
        /// Maximum number of items on the page: 1 to 100, default 20.
        #[oai(
            default = "palisade::http::paging::default_limit",
            validator(minimum(value = "1"), maximum(value = "100"))
        )]
        limit: Query<i64>,
        /// `nextCursor` of the previous page. Omit it for the first page.
        cursor: Query<Option<Text<formats::Cursor>>>,
    ) -> Result<Json<CustomerPage>> {
        let paging = Paging::new(&self.context.mac_key, "customers", permit.tenant(), limit.0);
        let start = paging.open(cursor.0.as_deref())?.unwrap_or_else(Position::start);
        let page = customers::page(&self.context.database, permit, start, paging.read_ahead()).await?;
        Ok(Json(CustomerPage::new(page, &paging)?))
    }

    /// Search customers
    ///
    /// Lists the customers with one e-mail address or one tax identifier, newest first, with
    /// personal fields masked. Only users with the role `billing`, `auditor` or `admin` may search:
    /// a found customer confirms the value. Fails with 422 without a value to search for
    /// (`required`), and with both (`not_combinable`).
    #[oai(path = "/v1/customers/search", method = "post", operation_id = "searchCustomers")]
    async fn search(
        &self,
        permit: &Permit<SearchCustomers>,
        body: StrictJson<CustomerSearch>,
    ) -> Result<Json<CustomerPage>> {
        let paging = Paging::new(&self.context.mac_key, "customers", permit.tenant(), body.value.limit);
        let start = paging.open(body.value.cursor.as_deref())?.unwrap_or_else(Position::start);
        let filter = body.value.filter()?;
        let page = customers::search(&self.context.database, permit, start, &filter, paging.read_ahead()).await?;
        // A found customer confirms the guessed value.
        if !page.is_empty() {
            self.context.personal_data_monitor.record(permit);
        }
        Ok(Json(CustomerPage::new(page, &paging)?))
    }

    /// Get a customer
    ///
    /// Returns the customer, or 404 after its erasure. Personal fields are masked unless a user with
    /// the role `billing`, `auditor` or `admin` calls.
    #[oai(path = "/v1/customers/:id", method = "get", operation_id = "getCustomer")]
    async fn get(
        &self,
        permit: &Permit<GetCustomer>,
        /// Customer id (UUID).
        id: Path<CustomerId>,
    ) -> Result<Json<CustomerView>> {
        let customer = customers::get(&self.context.database, permit, id.0).await?;
        let customer = customer.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let access = permit.personal_data_access();
        if access.is_some() {
            self.context.personal_data_monitor.record(permit);
        }
        Ok(Json(CustomerView::new(&customer, access)?))
    }

    /// Update a customer
    ///
    /// Omitted fields keep their value; `null` clears a field (RFC 7396). A body without fields
    /// changes nothing. This response always masks the personal fields.
    #[oai(path = "/v1/customers/:id", method = "patch", operation_id = "updateCustomer")]
    async fn update(
        &self,
        permit: &Permit<UpdateCustomer>,
        /// Customer id (UUID).
        id: Path<CustomerId>,
        body: StrictJson<CustomerPatch>,
    ) -> Result<Json<CustomerView>> {
        let change = body.value.into_domain()?;
        let now = self.context.clock.now();
        let customer = customers::update(&self.context.database, permit, id.0, change, now).await?;
        let customer = customer.ok_or_else(|| Problem::new(Kind::NotFound))?;
        Ok(Json(CustomerView::new(&customer, None)?))
    }

    /// Erase a customer
    ///
    /// Deletes the customer's name and personal fields and destroys its encryption key; this cannot
    /// be undone. Orders and invoices remain, with the free text on them. A second call returns
    /// 404.
    #[oai(path = "/v1/customers/:id", method = "delete", operation_id = "eraseCustomer")]
    async fn erase(
        &self,
        permit: &Permit<EraseCustomer>,
        /// Customer id (UUID).
        id: Path<CustomerId>,
    ) -> Result<Erased> {
        let tx = self.context.database.write(permit).await?;
        let customer = tx.lock::<CustomerRef>(id.0).await?.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let customer_permit = permit.for_object(&customer)?;
        tx.erase(&customer_permit, COLLECTION, self.context.clock.now()).await?;
        tx.commit(permit, id.0).await?;
        Ok(Erased::NoContent)
    }
}

/// The path of the collection, for the `Location` of a customer.
const COLLECTION: &str = "/v1/customers";

fn location(id: CustomerId) -> String {
    format!("{COLLECTION}/{id}")
}
