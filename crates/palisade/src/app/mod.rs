//! The composition root: settings in, a running service out.
//!
//! `serve` and `dev` call [`start`], which binds the ports, builds the [`Components`] and starts
//! the background tasks, and then [`Running::run`], which serves until a stop signal (FAIL-03).

mod builder;
mod components;
#[cfg(feature = "dev")]
mod demo;
mod secret_reload;

pub use builder::App;
#[cfg(feature = "dev")]
pub use demo::{Demo, DemoError, DemoFile, DemoKeys, Request, SeedFuture, Stack};

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use thiserror::Error;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use self::components::Components;
use crate::{
    authn::SetupError,
    authz::MatrixError,
    db::UnfitDatabase,
    edge::{self, EdgeService, ListenerKind, Tls, TlsError},
    http::{RoutesError, ServedRoute},
    model::Clock,
    quota::SharedQuotaError,
    settings::{self, Faults, ServiceSettings, Settings},
};

/// A service that has bound its ports and is ready to run.
pub struct Running<S, I> {
    public: BoundService<S>,
    /// The internal listener, if it is configured.
    internal: Option<BoundService<I>>,
    served: Vec<ServedRoute>,
    http: settings::Http,
    components: Components,
    /// Tasks that run for the lifetime of the service. Dropping the set ends them.
    background: JoinSet<()>,
}

/// A bound port and the service behind it.
struct BoundService<S> {
    service: S,
    listener: edge::Listener,
    address: SocketAddr,
}

/// Errors that keep the service from starting.
#[derive(Debug, Error)]
pub enum StartError {
    /// The settings of the service have faults.
    #[error(transparent)]
    Settings(#[from] Faults),
    /// A port cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The certificate or key of a TLS listener cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The authenticator could not be set up.
    #[error(transparent)]
    Authenticator(#[from] SetupError),
    /// The database cannot be reached, or fails a check of its schema or roles.
    #[error(transparent)]
    Database(#[from] UnfitDatabase),
    /// The settings of the shared quota store cannot be used.
    #[error(transparent)]
    SharedQuota(#[from] SharedQuotaError),
    /// The per-address rate limit would reject every request.
    #[error("the per-address rate limit rejects every request; raise APP_THROTTLE__ADDRESS_PER_SECOND or _BURST")]
    Throttle,
    /// The declared access rules contradict each other (THREAT-01).
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// An operation is not in the route matrix (THREAT-01), its handler takes another permit
    /// (AUTHZ-04), or a body's schema cannot be checked (INPUT-02).
    #[error(transparent)]
    Routes(#[from] RoutesError),
}

/// A background task ended, so the service stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a background task ended; the log names the error")]
pub struct BackgroundEnded;

/// Binds the ports, validates the database and starts the background tasks.
///
/// Issuer keys are fetched in the background: until the issuer answers, the service is alive but
/// not ready.
///
/// # Errors
/// The first [`StartError`].
pub async fn start<S: ServiceSettings>(
    app: &App<S>,
    settings: Settings,
    clock: Clock,
) -> Result<Running<impl EdgeService + use<S>, impl EdgeService + use<S>>, StartError> {
    let service_settings = Arc::new(settings.sources.read_service::<S>()?);
    let (listener, address) = bind(ListenerKind::Public, settings.http.listen, settings.tls.as_ref(), &clock).await?;
    let internal = match &settings.internal {
        Some(internal) => Some(bind(ListenerKind::Internal, internal.listen, Some(&internal.tls), &clock).await?),
        None => None,
    };
    let components = Components::build(app, &settings, address, clock).await?;
    let (routes, served) = app.api.routes(&components.context, &service_settings, app.document_title())?;
    let routes = Arc::new(routes);
    let internal = internal.map(|(listener, address)| {
        let endpoint = components.internal_endpoint(&settings, Arc::clone(&routes));
        let service = components.edge_stack(endpoint, ListenerKind::Internal, &settings)?;
        Ok::<_, StartError>(BoundService { service, listener, address })
    });
    let internal = internal.transpose()?;
    #[cfg(feature = "dev")]
    let routes = demo::WithFiles::new(routes, app.demo_data(), settings.profile);
    let service = components.edge_stack(routes, ListenerKind::Public, &settings)?;
    let public = BoundService { service, listener, address };
    components.load_initial_state().await?;
    let listeners = std::iter::once(&public.listener).chain(internal.as_ref().map(|internal| &internal.listener));
    let mut background = components.start_tasks(&settings, listeners.filter_map(|listener| listener.tls.clone()));
    for make in &app.tasks {
        background.spawn(make(Arc::clone(&components.context), Arc::clone(&service_settings)));
    }
    Ok(Running { public, internal, served, http: settings.http, components, background })
}

/// Loads the certificate, if any, and binds a port. Returns the address with the actual port
/// number.
async fn bind(
    kind: ListenerKind,
    address: SocketAddr,
    tls: Option<&settings::Tls>,
    clock: &Clock,
) -> Result<(edge::Listener, SocketAddr), StartError> {
    let tls = tls.cloned().map(|tls| Tls::load(tls, clock.clone())).transpose()?;
    let bound = async {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok((edge::Listener { kind, socket, tls }, address))
    };
    bound.await.map_err(|source| StartError::Listen { address, source })
}

impl<S: EdgeService, I: EdgeService> Running<S, I> {
    /// Address of the public listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.public.address
    }

    /// Address of the internal listener, if it is configured.
    #[must_use]
    pub fn internal_address(&self) -> Option<SocketAddr> {
        self.internal.as_ref().map(|internal| internal.address)
    }

    /// Every route that the router serves.
    #[must_use]
    pub fn served(&self) -> &[ServedRoute] {
        &self.served
    }

    /// Serves until `stop` resolves. Then it is not ready any more, serves for the shutdown delay,
    /// and finishes the requests in flight (FAIL-03).
    ///
    /// # Errors
    /// [`BackgroundEnded`] if a background task ended. The service then stops in the same way,
    /// because it would go on with outdated keys, revocations or overrides.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), BackgroundEnded> {
        let internal = self.internal_address().map(|address| address.to_string());
        tracing::info!(address = %self.public.address, internal, "listening");
        let context = Arc::clone(&self.components.context);
        let mut outcome = Ok(());
        let (stopping, is_stopping) = watch::channel(false);
        let stop = async {
            outcome = wait_for_stop(stop, &mut self.background).await;
            if outcome.is_ok() && !self.http.shutdown_delay.is_zero() {
                context.is_stopping.store(true, Ordering::Relaxed);
                tracing::info!(delay_ms = self.http.shutdown_delay.as_millis(), "stopping; no longer ready");
                outcome = wait_for_stop(tokio::time::sleep(self.http.shutdown_delay), &mut self.background).await;
            }
            stopping.send_replace(true);
        };
        let until_stopping = |mut is_stopping: watch::Receiver<bool>| async move {
            // An error means that the sender is gone, so the service stops too.
            let _ = is_stopping.wait_for(|stopping| *stopping).await;
        };
        let stop_public = until_stopping(is_stopping.clone());
        let public = edge::serve(self.public.listener, self.public.service, &self.http, stop_public);
        let internal = async {
            if let Some(internal) = self.internal {
                edge::serve(internal.listener, internal.service, &self.http, until_stopping(is_stopping)).await;
            }
        };
        tokio::join!(stop, public, internal);
        drop(self.background);
        self.components.close().await;
        tracing::info!("stopped");
        outcome
    }
}

/// Waits until `stop` resolves or a background task ends.
async fn wait_for_stop(stop: impl Future<Output = ()>, background: &mut JoinSet<()>) -> Result<(), BackgroundEnded> {
    tokio::select! {
        () = stop => Ok(()),
        _ = background.join_next() => {
            tracing::error!("a background task ended; stopping the service");
            Err(BackgroundEnded)
        }
    }
}

impl<S, I> std::fmt::Debug for Running<S, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("address", &self.public.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A unit test, because no request can end a background task.
    #[tokio::test]
    async fn ended_background_task_stops_the_service() {
        let mut background = JoinSet::new();
        background.spawn(std::future::pending());
        assert_eq!(wait_for_stop(std::future::ready(()), &mut background).await, Ok(()));
        background.spawn(async { panic!("as in a test") });
        let ended = wait_for_stop(std::future::pending(), &mut background);
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        assert_eq!(ended, Ok(Err(BackgroundEnded)));
    }
}
