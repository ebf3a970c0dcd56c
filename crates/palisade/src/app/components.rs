//! Construction of the service's parts and of its background tasks.
//!
//! [`super::start`] builds [`Components`] from the settings, wraps the routers into edge services,
//! loads revocations and overrides, and starts the background tasks.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, header::CONNECTION};
use poem::{Endpoint, Response};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::{App, StartError, secret_reload::SecretReload};
use crate::{
    authn::Authenticator,
    db::{self, Credentials, UnfitDatabase},
    edge::{self, CachedCallerLookup, EdgeService, ListenerKind, Tls},
    http::{Context, PersonalDataMonitor},
    internal::{IncidentCommands, Internal},
    model::Clock,
    quota::{Overrides, Quotas},
    settings::Settings,
    store::maintenance::{self, Maintenance},
};

/// Interval between two samples of the connection pools.
const POOL_METRICS_INTERVAL: Duration = Duration::from_secs(5);

/// The parts that requests and background tasks share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Components {
    pub(super) context: Arc<Context>,
    maintenance: Maintenance,
    credentials: Credentials,
}

impl Components {
    /// Builds all parts. Validates the schema and the roles of the database.
    pub(super) async fn build<S>(
        app: &App<S>,
        settings: &Settings,
        address: SocketAddr,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let matrix = app.matrix()?;
        let (database, maintenance) = maintenance::open(settings, app.sealed_tables(), clock.clone())?;
        // Boxed, because these futures are large.
        Box::pin(maintenance.validate()).await?;
        let credentials = Credentials::new(settings)?;
        Box::pin(credentials.validate()).await?;
        if settings.incidents.is_some() {
            Box::pin(db::check_incidents_login(settings)).await?;
        }
        let mac_key = settings.secrets.mac_key.clone();
        let overrides = Arc::new(Overrides::new(clock.clone()));
        let quotas = Quotas::new(settings.quota.clone(), &mac_key, clock.clone(), Arc::clone(&overrides))?;
        let public_url = public_url(settings, address);
        let authenticator = Authenticator::new(settings, *matrix.rights(), &credentials, &public_url, &clock)?;
        let quotas = quotas.with_registry(authenticator.tenants());
        let context = Context {
            authenticator,
            matrix,
            database,
            quotas: Arc::new(quotas),
            overrides,
            mac_key,
            idempotency_retention: settings.idempotency.retention,
            max_export_rows: settings.exports.max_rows,
            personal_data_monitor: PersonalDataMonitor::new(settings.keys.alert_reads_per_minute, clock.clone()),
            clock,
            logged_parameters: app.logged_parameters,
            constraints: app.constraints,
            docs: settings.http.docs,
            is_stopping: AtomicBool::new(false),
            issuer: settings.oidc.first.public_address(),
            public_url,
        };
        Ok(Self { context: Arc::new(context), maintenance, credentials })
    }

    /// The endpoint of the internal listener: its own operations in front of the API's `routes`.
    pub(super) fn internal_endpoint<E>(&self, settings: &Settings, routes: E) -> Internal<E> {
        let incidents = settings
            .incidents
            .clone()
            .map(|login| IncidentCommands::new(login, settings.sources.clone(), self.maintenance.clone()));
        Internal::new(Arc::clone(&self.context), incidents, routes)
    }

    /// Wraps an endpoint into the edge: everything that happens between the socket and the router.
    pub(super) fn edge_stack<E>(
        &self,
        endpoint: E,
        kind: ListenerKind,
        settings: &Settings,
    ) -> Result<impl EdgeService + use<E>, StartError>
    where
        E: Endpoint<Output = Response> + 'static,
    {
        let context = Arc::clone(&self.context);
        let lookup: CachedCallerLookup = Arc::new(move |credentials| context.authenticator.lookup_cached(credentials));
        let service = edge::stack(endpoint, kind, settings, lookup, &self.context.overrides);
        let context = Arc::clone(&self.context);
        // Otherwise a client sends its next request on a connection that ends. hyper leaves the
        // header out of HTTP/2, which has GOAWAY for this.
        let close_when_stopping = move |mut response: http::Response<_>| {
            if context.is_stopping.load(Ordering::Relaxed) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        };
        Ok(service.ok_or(StartError::Throttle)?.map_response(close_when_stopping))
    }

    /// Connects to the quota store and loads revocations and overrides. Called before the first
    /// request: without revocations no credential is accepted, and a restart must not lift a limit.
    pub(super) async fn load_initial_state(&self) -> Result<(), StartError> {
        Box::pin(self.context.quotas.connect()).await;
        Box::pin(self.context.authenticator.load_revocations()).await.map_err(UnfitDatabase::from)?;
        Box::pin(self.context.overrides.refresh(&self.credentials)).await.map_err(UnfitDatabase::from)?;
        Ok(())
    }

    /// Starts every background task. None of them ends by itself.
    pub(super) fn start_tasks(&self, settings: &Settings, certificates: impl Iterator<Item = Arc<Tls>>) -> JoinSet<()> {
        let reload_ticker = || settings.sources.reload_ticker(settings.secrets.reload_interval);
        let seal_interval = settings.audit.seal_interval;
        let context = Arc::clone(&self.context);
        let secrets = SecretReload::new(settings, self.maintenance.clone(), context, self.credentials.clone());

        // Issuer keys, revocations, and the last use of API keys.
        let mut tasks = self.context.authenticator.start_background_tasks();
        self.spawn(&mut tasks, |parts| async move {
            parts.context.overrides.refresh_periodically(&parts.credentials).await;
        });
        self.spawn(&mut tasks, |parts| async move { parts.context.quotas.stay_connected().await });
        self.spawn(&mut tasks, |parts| async move { parts.context.quotas.evict_idle_periodically().await });
        self.spawn(&mut tasks, |parts| async move { parts.context.personal_data_monitor.clean_up().await });
        self.spawn(&mut tasks, |parts| async move { parts.maintenance.evict_expired_keys().await });
        self.spawn(&mut tasks, move |parts| async move { parts.maintenance.seal_periodically(seal_interval).await });
        self.spawn(&mut tasks, |parts| async move { parts.maintenance.sweep_periodically().await });
        self.spawn(&mut tasks, |parts| async move { parts.record_pool_metrics().await });
        tasks.spawn(secrets.run(reload_ticker()));
        for certificate in certificates {
            tasks.spawn(certificate.reload_on_change(reload_ticker()));
        }
        tasks
    }

    /// Spawns a task with its own clone of the components.
    fn spawn<F>(&self, tasks: &mut JoinSet<()>, task: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tasks.spawn(task(self.clone()));
    }

    async fn record_pool_metrics(&self) {
        loop {
            self.maintenance.record_pool_metrics();
            self.credentials.record_pool_metrics();
            tokio::time::sleep(POOL_METRICS_INTERVAL).await;
        }
    }

    /// Writes the pending API key uses, then closes all database connections.
    pub(super) async fn close(&self) {
        self.context.authenticator.flush().await;
        tokio::join!(self.maintenance.close(), self.credentials.close());
    }
}

/// The configured public URL, otherwise the address of the public listener.
fn public_url(settings: &Settings, address: SocketAddr) -> String {
    match &settings.http.public_url {
        Some(url) => url.to_string(),
        None if settings.tls.is_some() => format!("https://{address}"),
        None => format!("http://{address}"),
    }
}
