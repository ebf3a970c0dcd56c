//! Runs the development stack: private PostgreSQL, database, issuer, certificates, API.
//!
//! `cargo dev` calls [`run`]. Data is kept between runs in one folder (`.dev` by default); Ctrl-C
//! stops the API first and PostgreSQL last.

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
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    DevError, banner,
    certificates::Certificates,
    database::{Cluster, Urls},
    failed,
    issuer::{DevIssuer, SERVICE_CLIENT, WEB_CLIENT},
    postgres::{Binaries, Data, Server},
};
use crate::{
    app::{self, App, Running},
    authn::{API_KEYS, SESSIONS},
    edge::EdgeService,
    model::Clock,
    settings::{self, ServiceSettings},
    telemetry::{self, Telemetry},
};

const DATABASE_NAME: &str = "app";
/// Content of `CACHEDIR.TAG`, which makes backup programs and template engines skip the folder
/// (Cache Directory Tagging Specification).
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n";

/// Command-line options of `dev`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port of the API.
    pub port: u16,
    /// Port of the issuer.
    pub issuer_port: u16,
    /// Port of the internal listener.
    pub internal_port: u16,
    /// Delete the database of earlier runs first.
    pub fresh: bool,
    /// Folder for data that is kept between runs.
    pub folder: PathBuf,
}

/// Starts the stack, prints its addresses, runs until `stop` resolves, then stops the stack.
pub async fn run<S: ServiceSettings>(
    app: &App<S>,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<(), DevError> {
    let started = Instant::now();
    // Ports first: a taken port is found before PostgreSQL starts.
    let api_port = listen(options.port, "--port").await?;
    let issuer_port = listen(options.issuer_port, "--issuer-port").await?;
    let internal_port = listen(options.internal_port, "--internal-port").await?;
    prepare_folder(&options.folder)?;

    let mut stop = std::pin::pin!(stop);
    let server = tokio::select! {
        server = start_postgres(&options) => server?,
        () = &mut stop => return Ok(()),
    };
    // From here on every path ends with `server.stop()`.
    let service = tokio::select! {
        service = start_service(app, &options, &server, [api_port, internal_port], issuer_port, started) => Some(service),
        () = &mut stop => None,
    };
    let result = match service {
        Some(Ok((running, renewal, telemetry))) => {
            let ended = running.run(stop).await;
            renewal.abort();
            telemetry.finish().await;
            ended.map_err(DevError::from)
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    banner::print_step("stopping PostgreSQL");
    server.stop().await;
    result
}

async fn start_postgres(options: &Options) -> Result<Server, DevError> {
    let data = options.folder.join("postgres");
    let binaries = Binaries::find_or_fetch(&options.folder.join("postgres-binaries"), banner::print_step).await?;
    banner::print_step(&format!("starting PostgreSQL from {}", binaries.folder().display()));
    Server::start(&data, &binaries, if options.fresh { Data::Fresh } else { Data::Kept }).await
}

/// Starts everything above PostgreSQL. Returns the API, ready to run, the task that renews the
/// token files, and telemetry.
async fn start_service<S: ServiceSettings>(
    app: &App<S>,
    options: &Options,
    server: &Server,
    held_ports: [TcpListener; 2],
    issuer_listener: TcpListener,
    started: Instant,
) -> Result<(Running<impl EdgeService + use<S>, impl EdgeService + use<S>>, JoinHandle<()>, Telemetry), DevError> {
    banner::print_step("creating logins, running migrations, adding demo data");
    let demo = app.demo_data();
    let cluster = Cluster::new(server.url())?;
    let urls = cluster.provision(DATABASE_NAME).await?;
    let mut owner = PgConnection::connect(urls.owner.expose_secret()).await?;
    super::seed(&demo, &mut owner, &urls).await?;
    owner.close().await?;

    let clock = Clock::system();
    let audience = format!("api://{}", crate::package::name());
    let issuer = DevIssuer::start(issuer_listener, &audience, app.rights(), clock.clone())?;

    let certificates = Certificates::write(&options.folder, &clock)?;
    let variables = variables(
        options,
        &cluster,
        &urls,
        &issuer,
        &audience,
        certificates.variables(options.internal_port, demo.scopes),
        settings::environment(),
    );
    let settings = app.read_settings(variables)?;
    let telemetry = telemetry::serve(&settings.log, settings.otlp.as_ref())?;
    // Release the ports for the API. They were held so that a taken port fails early.
    drop(held_ports);
    let running = app::start(app, settings, clock).await?;
    let tokens = banner::TokenFiles::write(&options.folder, &issuer, &urls.operator)?;
    let addresses = [running.address(), running.internal_address().unwrap_or(running.address())];
    banner::print_ready(addresses, &issuer, server.url(), &tokens, &certificates, &demo, started.elapsed());
    Ok((running, tokens.spawn_renewal(issuer), telemetry))
}

/// The settings of the service, as environment variables. The developer's own add to them, and cannot
/// connect this stack, whose issuer asks for no password, to another database. A setting of the stack
/// that the developer has in a file (`_FILE`) is the stack's too.
fn variables(
    options: &Options,
    cluster: &Cluster,
    urls: &Urls,
    issuer: &DevIssuer,
    audience: &str,
    internal: Vec<(String, String)>,
    environment: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut variables = urls.variables();
    let mac_key = STANDARD.encode(cluster.derived("mac key"));
    let of_stack = [
        ("APP_PROFILE", "development"),
        ("APP_HTTP__LISTEN", &format!("127.0.0.1:{}", options.port)),
        ("APP_OIDC__ISSUER", issuer.url()),
        ("APP_OIDC__AUDIENCE", audience),
        ("APP_OIDC__CREATE_TENANTS", "true"),
        ("APP_OIDC__SERVICE_CLIENTS", SERVICE_CLIENT),
        ("APP_SECRETS__MAC_KEY", &mac_key),
    ];
    variables.extend(of_stack.map(|(name, value)| (name.to_owned(), value.to_owned())));
    if API_KEYS {
        variables.insert("APP_SECRETS__PEPPER".to_owned(), STANDARD.encode(cluster.derived("pepper")));
    }
    if SESSIONS {
        let of_sessions = [("APP_SESSIONS__CLIENT_ID", WEB_CLIENT), ("APP_SESSIONS__RETURN_PATHS", "/,/demo,/docs")];
        variables.extend(of_sessions.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    variables.extend(internal);
    for (name, value) in environment.into_iter().filter(|(name, _)| name.starts_with("APP_")) {
        let of_stack = name.strip_suffix("_FILE").is_some_and(|setting| variables.contains_key(setting));
        if !of_stack {
            variables.entry(name).or_insert(value);
        }
    }
    for (name, value) in [("APP_LOG__FORMAT", "text"), ("APP_LOG__FILTER", "info,sqlx=warn,poem=warn")] {
        if !variables.contains_key(&format!("{name}_FILE")) {
            variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    variables
}

async fn listen(port: u16, option: &'static str) -> Result<TcpListener, DevError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let hint = format!("cannot listen on port {port}; {option} takes another");
    TcpListener::bind(address).await.map_err(failed(hint))
}

fn prepare_folder(folder: &Path) -> Result<(), DevError> {
    let prepare = || {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("CACHEDIR.TAG"), CACHE_TAG)
    };
    prepare().map_err(failed::<io::Error>(format!("cannot write below {}", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::{Rights, RoleTable};

    /// Its issuer asks for no password, so it must never serve another database.
    #[tokio::test]
    async fn dev_stack_keeps_its_own_database_and_issuer() {
        let options = Options { port: 0, issuer_port: 0, internal_port: 0, fresh: false, folder: PathBuf::new() };
        let cluster = Cluster::new("postgres://postgres:password@127.0.0.1:5432/postgres").unwrap();
        let urls = cluster.urls(DATABASE_NAME);
        let rights = Rights { scopes: &[], roles: RoleTable(&[]) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = DevIssuer::start(listener, "api://test", rights, Clock::system()).unwrap();
        let with = |environment| variables(&options, &cluster, &urls, &issuer, "api://test", Vec::new(), environment);
        let of_stack = with(BTreeMap::new());
        let changed = |(name, value): (&String, &String)| (name.clone(), format!("{value}x"));
        let found = with(of_stack.iter().map(changed).chain([("PATH".to_owned(), String::new())]).collect());
        let differs = |name: &&String| found.get(*name) != of_stack.get(*name);
        let differing: Vec<&String> = found.keys().filter(differs).collect();
        assert_eq!(differing, ["APP_LOG__FILTER", "APP_LOG__FORMAT"]);
        // A setting and its file together would be a fault.
        let in_file = |name: &String| (format!("{name}_FILE"), "/path".to_owned());
        let found = with(of_stack.keys().map(in_file).collect());
        let files: Vec<&String> = found.keys().filter(|name| !of_stack.contains_key(*name)).collect();
        assert_eq!(files, ["APP_LOG__FILTER_FILE", "APP_LOG__FORMAT_FILE"]);
        assert_eq!(found.len(), of_stack.len());
    }
}
