use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection};
use thiserror::Error;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    banner,
    certificates::Certificates,
    database::{Cluster, DatabaseError, Urls},
    demo,
    issuer::{DevIssuer, IssuerError, SERVICE_CLIENT},
    postgres::{Binaries, Data, Durability, PostgresError, Server},
};
use crate::{
    app::{self, App, BackgroundEnded, StartError},
    domain::Clock,
    edge::EdgeService,
    settings::{self, Faults, Settings},
    telemetry::{self, ExportError, Telemetry},
};

const DATABASE: &str = "app";
/// Tells backup programs and template engines that the folder holds nothing worth copying
/// (Cache Directory Tagging Specification).
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n";

/// How `dev` runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port of the API.
    pub port: u16,
    /// Port of the issuer.
    pub issuer_port: u16,
    /// Port of the internal listener.
    pub internal_port: u16,
    /// Start with an empty database.
    pub fresh: bool,
    /// Where data is kept between runs.
    pub folder: PathBuf,
}

/// Why the development stack does not start.
#[derive(Debug, Error)]
pub enum DevError {
    /// A port is taken.
    #[error("port {port} is taken by another program; choose another with {option}")]
    PortTaken {
        /// The port.
        port: u16,
        /// The option that changes it.
        option: &'static str,
    },
    /// A port cannot be used.
    #[error("cannot listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write below {folder}")]
    Files {
        /// Where.
        folder: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The private PostgreSQL does not start.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The database could not be set up.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The issuer does not start.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// The generated configuration has a fault.
    #[error(transparent)]
    Settings(#[from] Faults),
    /// The API does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Nothing can be sent to the collector.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The API stopped.
    #[error(transparent)]
    Stopped(#[from] BackgroundEnded),
}

/// Starts everything, says where it is, and runs until `stop` resolves; then stops everything.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), DevError> {
    let started = Instant::now();
    // Ports first: a fault there should not cost a database start.
    let api_port = listen(options.port, "--port").await?;
    let issuer_port = listen(options.issuer_port, "--issuer-port").await?;
    let internal_port = listen(options.internal_port, "--internal-port").await?;
    prepare_folder(&options.folder)?;

    let mut stop = std::pin::pin!(stop);
    let server = tokio::select! {
        server = start_postgres(&options) => server?,
        () = &mut stop => return Ok(()),
    };
    // From here on the database is stopped in order whatever happens.
    let service = tokio::select! {
        service = start_service(&options, &server, [api_port, internal_port], issuer_port, started) => Some(service),
        () = &mut stop => None,
    };
    let result = match service {
        Some(Ok((app, renewal, telemetry))) => {
            let ended = app.run(stop).await;
            renewal.abort();
            telemetry.finish().await;
            ended.map_err(DevError::from)
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    banner::step("stopping PostgreSQL");
    server.stop().await;
    result
}

async fn start_postgres(options: &Options) -> Result<Server, DevError> {
    let data = options.folder.join("postgres");
    let binaries = Binaries::find_or_fetch(&options.folder.join("postgres-binaries"), banner::step).await?;
    let earlier = if options.fresh { Data::Deleted } else { Data::Kept };
    banner::step(&format!("starting PostgreSQL from {}", binaries.folder().display()));
    Ok(Server::start(&data, &binaries, Durability::Durable, earlier).await?)
}

/// Everything above the database: the API, ready to run, what renews the token files, and what is sent to a collector.
async fn start_service(
    options: &Options,
    server: &Server,
    held_ports: [TcpListener; 2],
    issuer_listener: TcpListener,
    started: Instant,
) -> Result<(App<impl EdgeService + use<>, impl EdgeService + use<>>, JoinHandle<()>, Telemetry), DevError> {
    banner::step("creating logins, running migrations, adding demo data");
    let cluster = Cluster::new(server.url())?;
    let urls = cluster.provision(DATABASE).await?;
    let mut owner = PgConnection::connect(urls.owner.expose_secret()).await.map_err(DatabaseError::from)?;
    demo::seed(&mut owner, &urls).await?;
    owner.close().await.map_err(DatabaseError::from)?;

    let clock = Clock::system();
    let audience = format!("api://{}", env!("CARGO_PKG_NAME"));
    let tenant = demo::TENANTS.map(|tenant| tenant.id);
    let issuer = DevIssuer::start(issuer_listener, &audience, demo::people(), tenant[0], clock.clone())?;

    let certificates = Certificates::write(&options.folder, &clock)?;
    let variables = variables(options, &cluster, &urls, &issuer, &audience, &certificates);
    let settings = Settings::from_variables(variables)?;
    let telemetry = telemetry::serve(&settings.log, settings.otlp.as_ref())?;
    // Given back an instant before the API takes them: they were held to fail early.
    drop(held_ports);
    let app = app::start(settings, clock).await?;
    let tokens = banner::TokenFiles::write(&options.folder, &issuer, &urls.operator)?;
    let addresses = [app.address(), app.internal_address().unwrap_or(app.address())];
    banner::ready(addresses, &issuer, server.url(), &tokens, &certificates, started.elapsed());
    Ok((app, tokens.keep_fresh(issuer), telemetry))
}

/// The configuration of the service, as anybody would write it in an environment.
fn variables(
    options: &Options,
    cluster: &Cluster,
    urls: &Urls,
    issuer: &DevIssuer,
    audience: &str,
    certificates: &Certificates,
) -> BTreeMap<String, String> {
    let mut variables = urls.variables();
    let mac_key = STANDARD.encode(cluster.derived("mac key"));
    let pepper = STANDARD.encode(cluster.derived("pepper"));
    let own = [
        ("APP_PROFILE", "development"),
        ("APP_HTTP__LISTEN", &format!("127.0.0.1:{}", options.port)),
        ("APP_OIDC__ISSUER", issuer.url()),
        ("APP_OIDC__AUDIENCE", audience),
        ("APP_OIDC__SERVICE_CLIENTS", SERVICE_CLIENT),
        ("APP_SECRETS__MAC_KEY", &mac_key),
        ("APP_SECRETS__PEPPER", &pepper),
        ("APP_LOG__FORMAT", "text"),
        ("APP_LOG__FILTER", "info,sqlx=warn,poem=warn"),
    ];
    variables.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables.extend(certificates.variables(options.internal_port));
    // What the developer sets themself wins.
    variables.extend(settings::environment().into_iter().filter(|(name, _)| name.starts_with("APP_")));
    variables
}

async fn listen(port: u16, option: &'static str) -> Result<TcpListener, DevError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => DevError::PortTaken { port, option },
        _ => DevError::Listen { port, source },
    })
}

fn prepare_folder(folder: &Path) -> Result<(), DevError> {
    let prepare = || {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("CACHEDIR.TAG"), CACHE_TAG)
    };
    prepare().map_err(|source| DevError::Files { folder: folder.to_owned(), source })
}
