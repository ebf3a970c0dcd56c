//! The composition root: settings in, a running service out.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{
    api::{self, ServedRoute, UnguardedRoute},
    authn::{Authenticator, SetupError},
    domain::Clock,
    edge::{self, Tls, TlsError},
    measures::Measures,
    quota::{Quotas, SharedQuotaError},
    reload::Reload,
    settings::{self, Settings},
    store::{self, Credentials, Database, UnfitDatabase},
};

/// How often connections to the database are counted.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// A service that is ready to run and holds its ports.
pub struct App<S, I> {
    public: Serving<S>,
    /// For services of one's own, if it is wanted.
    internal: Option<Serving<I>>,
    served: Vec<ServedRoute>,
    http: settings::Http,
    context: Arc<api::Context>,
    credentials: Credentials,
    /// What runs beside the requests; it ends when this is dropped.
    background: JoinSet<()>,
}

/// A port that is held, and what is served there.
struct Serving<S> {
    service: S,
    listener: edge::Listener,
    address: SocketAddr,
}

/// Why the service does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address of the settings.
        address: SocketAddr,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// There is no TLS, though there should be.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Credentials could not be verified.
    #[error(transparent)]
    Authenticator(#[from] SetupError),
    /// The database must not be served with.
    #[error(transparent)]
    Database(#[from] UnfitDatabase),
    /// Quotas cannot be shared.
    #[error(transparent)]
    SharedQuota(#[from] SharedQuotaError),
    /// The throttle's settings would let nothing through.
    #[error("the throttle would refuse every request")]
    Throttle,
    /// An operation is not in the route matrix (control THREAT-01).
    #[error(transparent)]
    UnguardedRoute(#[from] UnguardedRoute),
}

/// A task that runs beside the requests ended, so the service stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a background task ended; the log says which failed")]
pub struct BackgroundEnded;

/// Takes the ports, connects to the database and checks that it is fit. The issuer is asked
/// for its keys in the background: until it answers, the service is alive but not ready.
pub async fn start(
    settings: Settings,
    clock: Clock,
) -> Result<App<impl edge::EdgeService + use<>, impl edge::EdgeService + use<>>, StartError> {
    let public = listen(edge::Door::Public, settings.http.listen, settings.tls.as_ref(), &clock).await?;
    let internal = match &settings.internal {
        Some(internal) => Some(listen(edge::Door::Internal, internal.listen, Some(&internal.tls), &clock).await?),
        None => None,
    };
    let address = public.1;
    let database = Database::new(&settings, clock.clone())?;
    // In boxes, as they are large.
    Box::pin(database.check_fit()).await?;
    let credentials = Credentials::new(&settings)?;
    Box::pin(credentials.check_fit()).await?;
    if settings.incidents.is_some() {
        Box::pin(store::check_incidents_login(&settings)).await?;
    }
    let authenticator = Authenticator::new(&settings, &credentials, &clock)?;
    let public_url = match &settings.http.public_url {
        Some(url) => url.to_string(),
        None if settings.tls.is_some() => format!("https://{address}"),
        None => format!("http://{address}"),
    };
    let measures = Arc::new(Measures::new(clock.clone()));
    let (shared, mac_key) = (settings.quota.clone(), &settings.secrets.mac_key);
    let quotas = Quotas::new(shared, mac_key, clock.clone(), Arc::clone(&measures))?;
    let context = Arc::new(api::Context {
        database,
        authenticator,
        quotas: Arc::new(quotas),
        measures: Arc::clone(&measures),
        incidents: settings.incidents.clone().map(|login| api::IncidentDesk::new(login, settings.sources.clone())),
        mac_key: settings.secrets.mac_key.clone(),
        idempotency_retention: settings.idempotency.retention,
        max_key_lifetime: settings.api_keys.max_lifetime,
        max_export_rows: settings.max_export_rows,
        watch: api::Watch::new(settings.keys.usual_per_minute, clock.clone()),
        clock,
        docs: settings.http.docs,
        issuer: settings.oidc.first.url.clone(),
        public_url,
    });
    let (routes, served) = api::routes(&context)?;
    let routes = Arc::new(routes);
    let known = Arc::clone(&context);
    let recognise: edge::Recognise = Arc::new(move |shown| known.authenticator.recognise(shown));
    let inside = internal.map(|(listener, address)| {
        let api = api::Internal::new(Arc::clone(&context), Arc::clone(&routes));
        let service = edge::stack(api, edge::Door::Internal, &settings, Arc::clone(&recognise), &measures);
        Ok::<_, StartError>(Serving { service: service.ok_or(StartError::Throttle)?, listener, address })
    });
    let internal = inside.transpose()?;
    let outside = edge::stack(routes, edge::Door::Public, &settings, recognise, &measures);
    let outside = outside.ok_or(StartError::Throttle)?;
    // Before the first request: who never knew what was revoked lets nobody in.
    Box::pin(context.authenticator.learn_revocations()).await.map_err(UnfitDatabase::from)?;
    Box::pin(measures.look(&credentials)).await.map_err(UnfitDatabase::from)?;
    let mut background = context.authenticator.keep_fresh();
    Box::pin(context.quotas.connect()).await;
    let [forgetful, connected] = [(); 2].map(|()| Arc::clone(&context.quotas));
    let operators = credentials.clone();
    background.spawn(async move { measures.follow(&operators).await });
    let inner = internal.as_ref().map(|internal| &internal.listener);
    for listener in std::iter::once(&public.0).chain(inner) {
        if let Some(tls) = &listener.tls {
            background.spawn(Arc::clone(tls).follow(settings.sources.looks(settings.secrets.look_every)));
        }
    }
    background.spawn(async move { forgetful.forget().await });
    let watch = Arc::clone(&context);
    background.spawn(async move { watch.watch.forget().await });
    background.spawn(async move { connected.stay_connected().await });
    let reload = Reload::new(&settings, Arc::clone(&context), credentials.clone());
    background.spawn(reload.follow(settings.sources.looks(settings.secrets.look_every)));
    let (counted, logins) = (context.database.clone(), credentials.clone());
    background.spawn(async move {
        loop {
            counted.measure();
            logins.measure();
            tokio::time::sleep(MEASURE_EVERY).await;
        }
    });
    let trail = context.database.clone();
    background.spawn(async move { trail.keep_sealing(settings.audit.seal_every).await });
    let keys = context.database.clone();
    background.spawn(async move { keys.forget_keys().await });
    let public = Serving { service: outside, listener: public.0, address };
    Ok(App { public, internal, served, http: settings.http, context, credentials, background })
}

/// Takes a port.
async fn listen(
    door: edge::Door,
    wanted: SocketAddr,
    tls: Option<&settings::Tls>,
    clock: &Clock,
) -> Result<(edge::Listener, SocketAddr), StartError> {
    let tls = tls.cloned().map(|tls| Tls::load(tls, clock.clone())).transpose()?;
    let listen = async {
        let socket = TcpListener::bind(wanted).await?;
        let address = socket.local_addr()?;
        Ok((edge::Listener { door, socket, tls }, address))
    };
    listen.await.map_err(|source| StartError::Listen { address: wanted, source })
}

impl<S: edge::EdgeService, I: edge::EdgeService> App<S, I> {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.public.address
    }

    /// Where it listens for services of one's own, if it does.
    #[must_use]
    pub fn internal_address(&self) -> Option<SocketAddr> {
        self.internal.as_ref().map(|internal| internal.address)
    }

    /// Every route it serves, as the router has them.
    #[must_use]
    pub fn served(&self) -> &[ServedRoute] {
        &self.served
    }

    /// Serves until `stop` resolves, then finishes what is in flight. Ends in the same way if something fails that
    /// runs beside the requests, and nothing of that ever should: without it the service would know less and less.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), BackgroundEnded> {
        let internal = self.internal_address().map(|address| address.to_string());
        tracing::info!(address = %self.public.address, internal, "listening");
        let mut outcome = Ok(());
        let (stopping, is_stopping) = watch::channel(false);
        let stop = async {
            outcome = stopped(stop, &mut self.background).await;
            stopping.send_replace(true);
        };
        let asked = |mut is_stopping: watch::Receiver<bool>| async move {
            // Without a sender it is over too.
            let _ = is_stopping.wait_for(|stopping| *stopping).await;
        };
        let public = edge::serve(self.public.listener, self.public.service, &self.http, asked(is_stopping.clone()));
        let internal = async {
            if let Some(internal) = self.internal {
                edge::serve(internal.listener, internal.service, &self.http, asked(is_stopping)).await;
            }
        };
        tokio::join!(stop, public, internal);
        drop(self.background);
        self.context.authenticator.finish().await;
        tokio::join!(self.context.database.close(), self.credentials.close());
        tracing::info!("stopped");
        outcome
    }
}

/// Until the service is to stop: because it was asked to, or because it lost what it needs.
async fn stopped(stop: impl Future<Output = ()>, background: &mut JoinSet<()>) -> Result<(), BackgroundEnded> {
    tokio::select! {
        () = stop => Ok(()),
        _ = background.join_next() => {
            tracing::error!("a background task ended");
            Err(BackgroundEnded)
        }
    }
}

impl<S, I> std::fmt::Debug for App<S, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("address", &self.public.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No caller can end one, so it is tried here: one that panics, beside one that goes on.
    #[tokio::test]
    async fn a_background_task_that_ends_stops_the_service() {
        let mut background = JoinSet::new();
        background.spawn(std::future::pending());
        assert_eq!(stopped(std::future::ready(()), &mut background).await, Ok(()));
        background.spawn(async { panic!("as in a test") });
        let ended = stopped(std::future::pending(), &mut background);
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        assert_eq!(ended, Ok(Err(BackgroundEnded)));
    }
}
