//! The internal listener (AUTHN-18): `/metrics`, `/incidents` and `/tenants`, in front of the public
//! API.
//!
//! A service authenticates with a client certificate and needs the right of the operation, which
//! the settings grant by name. Requests for other paths go to the API with its usual checks.
//! [`crate::app`] puts [`Internal`] behind the internal listener.

mod incidents;
mod tenants;

pub use incidents::IncidentCommands;

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use poem::{Endpoint, Request, Response, Result};

use crate::{
    authn::{ConnectionInfo, RequestCredentials, SourceNetwork},
    authz::{
        internal::{self, InternalRow, ServiceRight},
        matrix::Method,
    },
    http::{
        Context,
        authentication::{record_result, unauthenticated},
        strictness::{DeclaredQuery, check_no_body, check_query},
    },
    problem::{Kind, Problem},
    telemetry::{event, metrics_page},
};

/// The operations of the internal listener, and the API behind them.
pub(crate) struct Internal<E> {
    context: Arc<Context>,
    /// `None` if the settings have no login for commands.
    incidents: Option<IncidentCommands>,
    api: E,
}

impl<E> Internal<E> {
    pub(crate) fn new(context: Arc<Context>, incidents: Option<IncidentCommands>, api: E) -> Self {
        Self { context, incidents, api }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Internal<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let Some(row) = internal::find(request.uri().path()) else { return self.api.call(request).await };
        Ok(self.serve(row, request).await.unwrap_or_else(Problem::into_poem))
    }
}

impl<E> Internal<E> {
    async fn serve(&self, row: &InternalRow, mut request: Request) -> Result<Response, Problem> {
        // The edge adds both extensions to every request.
        let missing_extension = || Problem::new(Kind::Internal);
        let connection = request.extensions().get::<ConnectionInfo>().ok_or_else(missing_extension)?;
        let source = *request.extensions().get::<SourceNetwork>().ok_or_else(missing_extension)?;
        let query = request.uri().query().unwrap_or_default();
        let credentials =
            RequestCredentials { headers: request.headers(), method: request.method(), uri: request.uri(), connection };
        let authenticated = self.context.authenticator.authenticate_service(credentials, row.right);
        record_result("certificate", &authenticated);
        let (service, has_right) =
            authenticated.map_err(|error| unauthenticated(error, source, &self.context.public_url, None))?;
        if !has_right {
            event::authz_fail(&service, "", row.operation, "right");
            return Err(Problem::new(Kind::Forbidden));
        }
        let method = request.method().as_str();
        if method != row.method.as_str() && !(method == "HEAD" && row.method == Method::Get) {
            let allow = if row.method == Method::Get { "GET, HEAD" } else { row.method.as_str() };
            return Err(Problem::new(Kind::MethodNotAllowed).header(header::ALLOW, HeaderValue::from_static(allow)));
        }
        check_query(&DeclaredQuery::default(), query)?;
        match row.right {
            ServiceRight::Incidents => {
                incidents::handle(self.incidents.as_ref(), &self.context.clock, &service, &mut request).await
            }
            ServiceRight::Tenants => {
                tenants::handle(self.incidents.as_ref(), &self.context.clock, &service, &mut request).await
            }
            ServiceRight::Metrics => {
                check_no_body(&mut request).await?;
                let page = metrics_page::render().map_err(|_| Problem::new(Kind::Unavailable))?;
                let response = Response::builder().status(StatusCode::OK).content_type(metrics_page::MEDIA_TYPE);
                Ok(response.body(page))
            }
        }
    }
}
