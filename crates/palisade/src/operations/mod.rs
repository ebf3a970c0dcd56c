//! The operations that every service has, and the API that they make together with the service's.
//!
//! An operation gets its [`Permit`](crate::authz::Permit) and the parsed request, calls
//! [`crate::store`], and renders the response. [`GuardedRoutes`] wraps every route with the checks
//! of its row in the route matrix, so they run before the first argument is read. An operation
//! without a row prevents startup. The router serves exactly the documented routes (THREAT-03).
//! [`crate::app`] builds an [`Api`] from the operations of the service.

#[cfg_attr(not(feature = "api_keys"), path = "without_api_keys.rs")]
mod api_keys;
mod audit;
mod cached_text;
#[cfg(feature = "exports")]
mod exports;
mod health;
mod me;
mod meta;
#[cfg_attr(not(feature = "sessions"), path = "without_sessions.rs")]
mod sessions;

#[cfg(feature = "exports")]
pub use exports::{Cell, ExportRow, ExportRows, Exports};
pub use meta::Document;

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use poem::{Endpoint, EndpointExt, Response, endpoint::BoxEndpoint};
use poem_openapi::{OpenApi, OpenApiService, Tags};

use crate::http::{Context, GuardedRoutes, RoutesError, ServedRoute, from_framework};

/// Groups of the kernel's operations in the OpenAPI document.
#[derive(Tags)]
enum Tag {
    /// The authenticated caller.
    Identity,
    /// The tenant's audit trail.
    Audit,
    /// Health probes and API documentation.
    Operations,
}

/// The operations that every service has.
type KernelOperations = (me::Me, api_keys::ApiKeys, sessions::Sessions, audit::AuditEvents, health::Health, meta::Meta);

type MakeRoutes<S> = dyn Fn(&Arc<Context>, &S, Title) -> Result<Served, RoutesError> + Send + Sync;

/// The API as one endpoint, and the routes that it serves.
pub(crate) type Served = (BoxEndpoint<'static, Response>, Vec<ServedRoute>);

/// The operations of a service with the settings `S`, joined with those of the kernel.
pub(crate) struct Api<S> {
    routes: Box<MakeRoutes<S>>,
    document: fn(Title) -> Document,
}

impl<S> Api<S> {
    /// The API of the operations that `make` creates for each server.
    pub(crate) fn new<O: OpenApi + 'static>(make: fn(&Arc<Context>, &S) -> O) -> Self
    where
        S: 'static,
    {
        let document = Document::new::<(KernelOperations, O)>;
        let routes = move |context: &Arc<Context>, settings: &S, title: Title| {
            let kernel = (
                me::Me,
                api_keys::new(context),
                sessions::new(context),
                audit::AuditEvents { context: Arc::clone(context) },
                health::Health::new(Arc::clone(context)),
                meta::Meta::new(context, document(title)),
            );
            serve((kernel, make(context, settings)), title, context)
        };
        Self { routes: Box::new(routes), document }
    }

    /// Schemas and document of the API.
    pub(crate) fn document(&self, title: Title) -> Document {
        (self.document)(title)
    }

    /// Every operation behind its guard, and every error as a problem.
    ///
    /// # Errors
    /// [`RoutesError`] if an operation has no row in the route matrix, or a body an unsupported
    /// schema.
    pub(crate) fn routes(&self, context: &Arc<Context>, settings: &S, title: Title) -> Result<Served, RoutesError> {
        (self.routes)(context, settings, title)
    }
}

/// Title and description of a service in its OpenAPI document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Title {
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
}

/// The router. An error of it is a problem, and a 405 lists the allowed methods (RFC 9110 section
/// 15.5.6).
struct Router {
    routes: BoxEndpoint<'static>,
    context: Arc<Context>,
}

impl Endpoint for Router {
    type Output = Response;

    async fn call(&self, request: poem::Request) -> poem::Result<Response> {
        let uri = request.uri().clone();
        let mut response = self.routes.call(request).await.unwrap_or_else(|error| from_framework(error).into_poem());
        if response.status() == StatusCode::METHOD_NOT_ALLOWED
            && let Ok(methods) = HeaderValue::try_from(self.context.matrix.allowed(uri.path()))
        {
            response.headers_mut().insert(header::ALLOW, methods);
        }
        Ok(response)
    }
}

/// The operations as one endpoint.
///
/// The served routes are read from the router and not from the document.
fn serve<O: OpenApi + 'static>(
    operations: (KernelOperations, O),
    title: Title,
    context: &Arc<Context>,
) -> Result<Served, RoutesError> {
    let guarded = GuardedRoutes::new(operations, context)?;
    let served = guarded.list_routes();
    let service = OpenApiService::new(guarded, title.title, crate::package::version());
    let routes = poem::IntoEndpoint::into_endpoint(service);
    Ok((Router { routes, context: Arc::clone(context) }.boxed(), served))
}
