//! Stands in for `internal` without the feature `internal_listener`: every request goes to the API.

use std::sync::Arc;

use poem::{Endpoint, Request, Response, Result};

use crate::{
    http::Context,
    settings::{LoginSettings, Sources},
    store::maintenance::Maintenance,
};

/// There are no incident commands of services.
#[derive(Debug)]
pub(crate) struct IncidentCommands;

impl IncidentCommands {
    pub(crate) fn new(_: LoginSettings, _: Sources, _: Maintenance) -> Self {
        Self
    }
}

/// The API alone.
pub(crate) struct Internal<E>(E);

impl<E> Internal<E> {
    pub(crate) fn new(_: Arc<Context>, _: Option<IncidentCommands>, api: E) -> Self {
        Self(api)
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Internal<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        self.0.call(request).await
    }
}
