//! Operations and their schemas. No SQL and no policy: an operation parses, asks for its
//! permit, calls [`crate::store`], and renders.
//!
//! [`guard`] wraps every route with its row of the matrix, so the checks run before an
//! operation's first argument is read, and an operation without a row stops the start.

mod document;
mod guard;
mod health;
mod me;
mod meta;
mod orders;
mod paging;
mod products;
mod schema;
mod strict_json;

pub use guard::UnguardedRoute;
pub use meta::document;

use std::sync::Arc;

use poem::{Endpoint, EndpointExt, Response};
use poem_openapi::{Object, OpenApiService, Tags};

use crate::{
    authn::{Authenticator, KeyService},
    crypto::MacKey,
    domain::{Clock, Money},
    problem::{self, Kind, Problem},
    store::{Database, StoreError},
};

/// What operations work with. One per server.
#[derive(Debug)]
pub struct Context {
    /// The only way to the data.
    pub database: Database,
    /// Verifies credentials.
    pub authenticator: Authenticator,
    /// For readiness.
    pub keys: Arc<KeyService>,
    /// Authenticates the cursors of lists.
    pub cursor_key: MacKey,
    /// The time.
    pub clock: Clock,
    /// Whether the document and its page are served.
    pub docs: bool,
    /// The issuer's URL, for the document.
    pub issuer: String,
    /// Where callers reach the service, for the document.
    pub public_url: String,
}

/// Groups of operations in the document.
#[derive(Tags)]
enum Tag {
    /// Who the caller is.
    Identity,
    /// The tenant's products.
    Catalog,
    /// Placing, reading and cancelling orders.
    Orders,
    /// Probes and documents.
    Operations,
}

type Operations = (me::Me, products::Products, orders::Orders, health::Health, meta::Meta);

/// All operations.
fn operations(context: &Arc<Context>) -> Operations {
    (
        me::Me,
        products::Products(Arc::clone(context)),
        orders::Orders(Arc::clone(context)),
        health::Health::new(Arc::clone(context)),
        meta::Meta::new(context),
    )
}

/// What the router serves: method and path, with `:` before each parameter.
pub type ServedRoute = (http::Method, String);

/// The application: every operation behind its guard, every error a problem. With it, the list of
/// what it serves, taken from the router and not from the document.
pub fn routes(
    context: &Arc<Context>,
) -> Result<(impl Endpoint<Output = Response> + use<>, Vec<ServedRoute>), UnguardedRoute> {
    let guarded = guard::Guarded::new(operations(context), context)?;
    let served = guarded.served();
    let service = OpenApiService::new(guarded, meta::TITLE, env!("CARGO_PKG_VERSION"));
    let endpoint = poem::IntoEndpoint::into_endpoint(service)
        .catch_all_error(|error: poem::Error| async move { problem::from_framework(error).into_poem() })
        .map_to_response();
    Ok((endpoint, served))
}

/// An amount of money in minor units (cents), never a fraction.
#[derive(Debug, Object)]
#[oai(rename = "Money")]
struct MoneyView {
    /// Minor units of the currency.
    #[oai(validator(minimum(value = "0")))]
    amount: i64,
    /// ISO 4217 code.
    #[oai(validator(pattern = "^[A-Z]{3}$"))]
    currency: String,
}

impl From<Money> for MoneyView {
    fn from(money: Money) -> Self {
        Self { amount: money.amount(), currency: money.currency().to_string() }
    }
}

/// So that an operation can say `?` to its store.
impl From<StoreError> for poem::Error {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let source = std::error::Error::source(&error);
        match &error {
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, cause = ?source, "store unavailable");
                Self::new(Kind::Unavailable)
            }
            StoreError::Broken(_) => {
                tracing::error!(%error, cause = ?source, "store error");
                Self::new(Kind::Internal)
            }
        }
    }
}
