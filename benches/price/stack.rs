//! What a measurement runs on: a private PostgreSQL, an issuer, databases with data, services.
//!
//! PostgreSQL flushes each commit to disk, as in production. Everything listens on loopback and ends
//! with this process.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use palisade::{
    authz::Role,
    dev::{
        database::Cluster,
        issuer::DevIssuer,
        postgres::{Binaries, Data, Server},
    },
    model::Clock,
};
use secrecy::ExposeSecret as _;
use service::access::roles::{ADMIN, VIEWER};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{
    Failure, load,
    operations::{Caller, tenant_id},
    process::{self, Program, cpu_with_children},
};

const AUDIENCE: &str = "api://price";
/// Tokens of each tenant, each of another user: a single one would make the cache look too good.
const TOKENS: usize = 64;
/// Lifetime of the tokens in seconds: longer than any run.
const TOKEN_LIFETIME: i64 = 86_400;
const SQL_LIMIT: Duration = Duration::from_mins(15);

pub(crate) struct Stack {
    pub(crate) cluster: Cluster,
    postmaster: Option<u32>,
    issuer: DevIssuer,
    folder: PathBuf,
}

/// Number of orders of all tenants, and of tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) orders: usize,
    pub(crate) tenants: usize,
}

/// A service with its database.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) program: Program,
    pub(crate) address: SocketAddr,
    pub(crate) database: String,
    pub(crate) size: Size,
    pub(crate) callers: Vec<Caller>,
    pub(crate) viewers: Vec<Caller>,
    /// Customers that the target has, as indexes of tenants and ids.
    pub(crate) customers: Vec<(usize, String)>,
}

/// Starts PostgreSQL with its data in `folder`.
pub(crate) async fn start_postgres(folder: &Path) -> Result<Server, Failure> {
    let say = |what: &str| eprintln!("· {what}");
    let binaries = Binaries::find_or_fetch(&folder.join("postgres-binaries"), say).await?;
    let data = folder.join("postgres");
    let server = Server::start(&data, &binaries, Data::Fresh).await?;
    // No vacuum or checkpoint in the middle of a round: both run between rounds.
    let mut admin = Cluster::new(server.url())?.connect().await?;
    for setting in ["shared_buffers = '256MB'", "max_wal_size = '8GB'", "checkpoint_timeout = '1h'", "autovacuum = off"]
    {
        sqlx::query(AssertSqlSafe(format!("alter system set {setting}"))).execute(&mut admin).await?;
    }
    server.stop().await;
    Server::start(&data, &binaries, Data::Kept).await
}

impl Stack {
    pub(crate) async fn start(server: &Server, folder: &Path) -> Result<Self, Failure> {
        let app = service::app();
        let cluster = Cluster::new(server.url())?;
        // Creates the logins. The services get databases of their own.
        cluster.provision("logins").await?;
        let mut admin = cluster.connect().await?;
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut admin).await?;
        let postmaster = process::parent(u32::try_from(backend)?);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let issuer = DevIssuer::start(listener, AUDIENCE, app.rights(), Clock::system())?;
        Ok(Self { cluster, postmaster, issuer, folder: folder.to_owned() })
    }

    /// Processor time of PostgreSQL so far, in seconds.
    pub(crate) fn postgres_cpu(&self) -> f64 {
        self.postmaster.map_or(0.0, cpu_with_children)
    }

    /// Starts the release binary `binary` on a new database of this size.
    pub(crate) async fn product(
        &self,
        name: &str,
        binary: &Path,
        size: Size,
        more: &[(&str, &str)],
    ) -> Result<Target, Failure> {
        let database = database_name(name);
        let urls = self.cluster.create(&database, None).await?;
        let mut migrate = std::process::Command::new(binary);
        process::without_settings(&mut migrate).arg("migrate").env("APP_PROFILE", "development");
        migrate.env("APP_DATABASE__OWNER_URL", urls.owner.expose_secret());
        migrate.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        process::run(migrate, SQL_LIMIT).await?;
        self.seed(&database, size).await?;
        self.start_product(name, binary, &database, size, more).await
    }

    /// Starts the release binary `binary` on a database that has its data.
    pub(crate) async fn start_product(
        &self,
        name: &str,
        binary: &Path,
        database: &str,
        size: Size,
        more: &[(&str, &str)],
    ) -> Result<Target, Failure> {
        let address = free_address()?;
        let key = |purpose: &str| STANDARD.encode(self.cluster.derived(purpose));
        let mut variables: Vec<(String, String)> = self.cluster.urls(database).variables().into_iter().collect();
        let listen = address.to_string();
        let (mac_key, pepper) = (key("MAC key"), key("pepper"));
        let lifetime = TOKEN_LIFETIME.to_string();
        let settings = [
            ("APP_PROFILE", "development"),
            ("APP_HTTP__LISTEN", &listen),
            ("APP_SECRETS__MAC_KEY", &mac_key),
            ("APP_SECRETS__PEPPER", &pepper),
            ("APP_OIDC__ISSUER", self.issuer.url()),
            ("APP_OIDC__AUDIENCE", AUDIENCE),
            ("APP_OIDC__CREATE_TENANTS", "true"),
            ("APP_OIDC__MAX_TOKEN_LIFETIME_SECONDS", &lifetime),
            // The limits count every request, but refuse none of these.
            ("APP_THROTTLE__ADDRESS_PER_SECOND", "1000000"),
            ("APP_THROTTLE__ADDRESS_BURST", "1000000"),
            ("APP_QUOTA__READ_PER_MINUTE", "1000000"),
            ("APP_QUOTA__WRITE_PER_MINUTE", "1000000"),
            ("APP_QUOTA__SENSITIVE_PER_MINUTE", "1000000"),
            ("APP_QUOTA__TENANT_PER_MINUTE", "1000000"),
            ("APP_FAILURE_LIMIT__FREE_FAILURES", "1000000"),
            ("APP_FAILURE_LIMIT__MAX_FAILURES", "1000000"),
            ("APP_KEYS__ALERT_READS_PER_MINUTE", "1000000"),
            ("APP_DATABASE__MAX_CONNECTIONS", "16"),
        ];
        variables.extend(settings.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let log = self.folder.join(format!("{}.log", database_name(name)));
        let mut program = Program::start(binary, &["serve"], &variables, &log)?;
        wait_until_ready(&mut program, address, &log).await?;
        let database = database.to_owned();
        let (callers, viewers) = (self.callers(ADMIN, size), self.callers(VIEWER, size));
        Ok(Target { name: name.to_owned(), program, address, database, size, callers, viewers, customers: Vec::new() })
    }

    /// Starts the service without security, on a new database of this size.
    pub(crate) async fn bare(&self, size: Size) -> Result<Target, Failure> {
        let database = database_name("bare");
        self.cluster.create(&database, None).await?;
        self.sql(&database, include_str!("bare.sql")).await?;
        self.seed(&database, size).await?;
        self.sql(&database, include_str!("bare_customers.sql")).await?;
        let url = self.cluster.urls(&database).owner;
        let mut target = self.own_program("bare", &["serve-bare", url.expose_secret()], size).await?;
        target.database = database;
        target.customers = (0..size.tenants).map(|tenant| (tenant, tenant_id(tenant))).collect();
        Ok(target)
    }

    /// Starts the server that answers every request with the same text. It gets the requests of
    /// the product.
    pub(crate) async fn hello(&self, product: &Target) -> Result<Target, Failure> {
        let hello = self.own_program("hello", &["serve-hello"], product.size).await?;
        Ok(Target { callers: product.callers.clone(), viewers: product.viewers.clone(), ..hello })
    }

    async fn own_program(&self, name: &str, arguments: &[&str], size: Size) -> Result<Target, Failure> {
        let address = free_address()?;
        let listen = address.to_string();
        let arguments: Vec<&str> = arguments.iter().copied().chain([listen.as_str()]).collect();
        let log = self.folder.join(format!("{name}.log"));
        let mut program = Program::start(&std::env::current_exe()?, &arguments, &[], &log)?;
        wait_until_ready(&mut program, address, &log).await?;
        let caller = |tenant: usize| Caller { tenant, header: format!("x-tenant: {}", tenant_id(tenant)) };
        let callers: Vec<Caller> = (0..size.tenants.min(TOKENS)).map(caller).collect();
        let (name, database) = (name.to_owned(), String::new());
        Ok(Target { name, program, address, database, size, callers, viewers: Vec::new(), customers: Vec::new() })
    }

    /// Users with this role, each with a token.
    fn callers(&self, role: Role, size: Size) -> Vec<Caller> {
        let person = self.issuer.people().iter().find(|person| person.role == role).expect("each role has a person");
        let caller = |index: usize| {
            let tenant = index % size.tenants;
            let mut claims = self.issuer.claims(person, self.issuer.scopes());
            claims["sub"] = format!("user-{index}").into();
            claims["tenant_id"] = tenant_id(tenant).into();
            claims["exp"] = (Clock::system().timestamp() + TOKEN_LIFETIME).into();
            Caller { tenant, header: format!("authorization: Bearer {}", self.issuer.key().access_token(&claims)) }
        };
        (0..TOKENS * size.tenants.min(2)).map(caller).collect()
    }

    async fn seed(&self, database: &str, size: Size) -> Result<(), Failure> {
        let sql = include_str!("seed.sql").replace("{tenants}", &size.tenants.to_string());
        self.sql(database, &sql.replace("{orders}", &size.orders.to_string())).await?;
        self.settle(database).await
    }

    /// Takes back what a round changed.
    pub(crate) async fn reset(&self, database: &str) -> Result<(), Failure> {
        self.sql(database, include_str!("reset.sql")).await?;
        self.settle(database).await
    }

    async fn settle(&self, database: &str) -> Result<(), Failure> {
        self.sql(database, "vacuum analyze").await?;
        self.sql(database, "checkpoint").await
    }

    async fn sql(&self, database: &str, text: &str) -> Result<(), Failure> {
        let mut superuser: PgConnection = self.cluster.connect_to(database).await?;
        let statement = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
        tokio::time::timeout(SQL_LIMIT, sqlx::Executor::execute(&mut superuser, statement)).await??;
        superuser.close().await?;
        Ok(())
    }
}

fn database_name(target: &str) -> String {
    target.replace([' ', ','], "_")
}

/// An address on loopback that was free a moment ago.
fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until the service answers. One that refuses everything for now is ready too.
async fn wait_until_ready(program: &mut Program, address: SocketAddr, log: &Path) -> Result<(), Failure> {
    let request = format!("GET /health/ready HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        match load::fetch(address, request.as_bytes()).await {
            Ok((status, _)) if status != 503 => return Ok(()),
            _ if program.has_ended() => return Err(format!("a service ended; see {}", log.display()).into()),
            _ if Instant::now() > deadline => return Err(format!("no service; see {}", log.display()).into()),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
