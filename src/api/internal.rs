//! What the internal listener answers: the operations that only it has, to services that were given the right, and
//! those of the API to whoever may call them (AUTHN-18).

use std::{collections::HashSet, sync::Arc};

use http::{HeaderValue, StatusCode, header};
use poem::{Endpoint, Request, Response, Result};

use super::{
    Context,
    guard::{check_no_body, check_query, unauthenticated},
    incidents,
};
use crate::{
    authn::{Peer, Shown, Source},
    authz::{
        internal::{self, InternalRow, ServiceRight},
        matrix::Method,
    },
    problem::{Kind, Problem},
    telemetry::{event, metrics},
};

/// The API with the internal operations in front.
pub(crate) struct Internal<E> {
    context: Arc<Context>,
    api: E,
}

impl<E> Internal<E> {
    pub(crate) fn new(context: Arc<Context>, api: E) -> Self {
        Self { context, api }
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
        let missing = || Problem::new(Kind::Internal);
        let peer = request.extensions().get::<Peer>().ok_or_else(missing)?;
        let source = *request.extensions().get::<Source>().ok_or_else(missing)?;
        let query = request.uri().query().unwrap_or_default();
        let named = self.context.authenticator.service(Shown { headers: request.headers(), query, peer }, row.right);
        let (service, may) = named.map_err(|error| unauthenticated(error, source))?;
        if !may {
            event::authz_fail(&service, "", row.operation, "right");
            return Err(Problem::new(Kind::Forbidden));
        }
        let method = request.method().as_str();
        if method != row.method.as_str() && !(method == "HEAD" && row.method == Method::Get) {
            let allow = if row.method == Method::Get { "GET, HEAD" } else { row.method.as_str() };
            return Err(Problem::new(Kind::MethodNotAllowed).header(header::ALLOW, HeaderValue::from_static(allow)));
        }
        check_query(&HashSet::new(), query)?;
        match row.right {
            ServiceRight::Incidents => incidents::handle(&self.context, &service, &mut request).await,
            ServiceRight::Metrics => {
                check_no_body(&request)?;
                let page = metrics::page().map_err(|_| Problem::new(Kind::Unavailable))?;
                let response = Response::builder().status(StatusCode::OK).content_type(metrics::MEDIA_TYPE);
                Ok(response.body(page))
            }
        }
    }
}
