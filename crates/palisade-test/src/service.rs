//! [`TestService`]: the service that a test program tests, with the database that its tests start
//! from.
//!
//! A suite declares it once, in a static; tests start it as a [`TestApp`].

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    process::Command,
    sync::{OnceLock, mpsc},
};

use palisade::{
    app::{self, App, Demo, StartError},
    authz::{Matrix, Rights, Role},
    dev::{
        self,
        database::Urls,
        people::{Person, Tenant, people},
    },
    http::ServedRoute,
    model::Clock,
    settings::{Faults, ServiceSettings, Settings},
    store::RegisteredTable,
};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::OnceCell;

use crate::{Actor, Authority, TestApp, UNTHROTTLED, eventually, postgres};

/// A service under test. Databases of its tests have its schema and its demo data.
pub struct TestService {
    app: Box<dyn AnyApp>,
    binary: Option<PathBuf>,
    template: OnceCell<String>,
    shared: OnceLock<TestApp>,
}

type Started<'a> = Pin<Box<dyn Future<Output = Result<Server, StartError>> + Send + 'a>>;

/// An [`App`] without the type of its settings.
trait AnyApp: Send + Sync {
    fn start(&self, settings: Settings, clock: Clock) -> Started<'_>;
    fn read_settings(&self, variables: BTreeMap<String, String>) -> Result<Settings, Faults>;
    fn rights(&self) -> Rights;
    fn matrix(&self) -> Matrix;
    fn document(&self, issuer: &str, url: &str) -> Value;
    fn demo(&self) -> Demo;
    fn sealed_tables(&self) -> &[RegisteredTable];
}

/// What a test may know of a server that runs.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) internal: Option<SocketAddr>,
    pub(crate) served: Vec<ServedRoute>,
    /// Serves until the runtime ends.
    pub(crate) run: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<S: ServiceSettings> AnyApp for App<S> {
    fn start(&self, settings: Settings, clock: Clock) -> Started<'_> {
        Box::pin(async move {
            let running = app::start(self, settings, clock).await?;
            Ok(Server {
                address: running.address(),
                internal: running.internal_address(),
                served: running.served().to_vec(),
                run: Box::pin(async move {
                    let _ = running.run(std::future::pending()).await;
                }),
            })
        })
    }

    fn read_settings(&self, variables: BTreeMap<String, String>) -> Result<Settings, Faults> {
        Self::read_settings(self, variables)
    }

    fn rights(&self) -> Rights {
        Self::rights(self)
    }

    fn matrix(&self) -> Matrix {
        Self::matrix(self).unwrap()
    }

    fn document(&self, issuer: &str, url: &str) -> Value {
        Self::document(self).render(&AnyApp::matrix(self), issuer, url)
    }

    fn demo(&self) -> Demo {
        self.demo_data()
    }

    fn sealed_tables(&self) -> &[RegisteredTable] {
        Self::sealed_tables(self)
    }
}

impl TestService {
    /// The service that this `app()` returns.
    pub fn new<S: ServiceSettings>(app: App<S>) -> Self {
        Self { app: Box::new(app), binary: None, template: OnceCell::new(), shared: OnceLock::new() }
    }

    /// States where its binary is, for tests of processes and commands:
    /// `env!("CARGO_BIN_EXE_<name>")`. `TEST_BINARY` names another one, such as a release build.
    #[must_use]
    pub fn with_binary(self, path: &str) -> Self {
        let chosen = std::env::var_os("TEST_BINARY").map_or_else(|| path.into(), PathBuf::from);
        Self { binary: Some(chosen), ..self }
    }

    /// A service that only one test knows. Its memory is freed when the process ends.
    pub fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    /// A command that runs the binary with an empty environment.
    pub fn binary(&self) -> Command {
        let path = self.binary.as_ref().expect("the suite states the binary with `with_binary`");
        let mut command = Command::new(path);
        command.env_clear();
        command
    }

    /// Scopes and roles.
    pub fn rights(&self) -> Rights {
        self.app.rights()
    }

    /// The rows of the kernel and of the service.
    pub fn matrix(&self) -> Matrix {
        self.app.matrix()
    }

    /// The tables with sealed columns.
    pub fn sealed_tables(&self) -> &[RegisteredTable] {
        self.app.sealed_tables()
    }

    /// The OpenAPI document, for this issuer and base URL.
    pub fn document(&self, issuer: &str, url: &str) -> Value {
        self.app.document(issuer, url)
    }

    /// Reads all settings from these variables.
    ///
    /// # Errors
    /// All faults.
    pub fn read_settings(&self, variables: BTreeMap<String, String>) -> Result<Settings, Faults> {
        self.app.read_settings(variables)
    }

    /// The role with the most permissions: that of an administrator.
    pub fn admin_role(&self) -> Role {
        let roles = self.rights().roles.0.iter().rev();
        roles.max_by_key(|(_, permissions)| permissions.len()).expect("a role").0
    }

    /// The demo person with this tenant and role.
    pub fn person(&self, tenant: &Tenant, role: Role) -> Person {
        let mut people = people(self.rights().roles).into_iter();
        people.find(|person| person.tenant == tenant.id && person.role == role).expect("a person with this role")
    }

    /// A database with schema and demo data, for one test; dropped when the test ends.
    pub async fn database(&self) -> Urls {
        let template = self.template.get_or_init(|| async {
            let name = postgres::template_name();
            let urls = postgres::provider().cluster.provision(&name).await.unwrap();
            self.seed(&urls).await;
            name
        });
        postgres::copy_of(template.await).await
    }

    /// Adds the demo data to a database with the schema.
    pub async fn seed(&self, database: &Urls) {
        let mut owner = PgConnection::connect(database.owner.expose_secret()).await.unwrap();
        dev::seed(&self.app.demo(), &mut owner, database).await.unwrap();
        owner.close().await.unwrap();
    }

    /// Starts with these settings; the error is that of `serve`.
    pub(crate) async fn start_server(&self, settings: Settings, clock: Clock) -> Result<Server, StartError> {
        self.app.start(settings, clock).await
    }

    /// Starts with these variables, to see whether it does.
    ///
    /// # Errors
    /// The message of the first error, as an operator sees it.
    pub async fn try_start(&self, variables: BTreeMap<String, String>) -> Result<(), String> {
        let settings = self.read_settings(variables).unwrap();
        self.start_server(settings, Clock::system()).await.map(drop).map_err(|error| error.to_string())
    }

    /// Starts with the default settings, apart from those in [`TestApp::variables`].
    pub async fn start(&'static self) -> TestApp {
        self.start_with(&[]).await
    }

    /// Starts on a database of its own, with these variables changed; an empty value removes the
    /// variable.
    pub async fn start_with(&'static self, variables: &[(&str, &str)]) -> TestApp {
        self.start_on(self.database().await, variables).await
    }

    /// Starts on an existing database. With a foreign issuer it does not wait for readiness.
    pub async fn start_on(&'static self, database: Urls, variables: &[(&str, &str)]) -> TestApp {
        let started = TestApp::start_without_waiting(self, database, variables).await;
        if variables.iter().all(|(name, _)| *name != "APP_OIDC__ISSUER") {
            started.wait_until_ready().await;
        }
        started
    }

    /// Starts with TLS settings among the variables, and waits with a client that trusts this
    /// authority.
    pub async fn start_with_tls(&'static self, variables: &[(&str, &str)], authority: &Authority) -> TestApp {
        let started = TestApp::start_without_waiting(self, self.database().await, variables).await;
        let client = authority.client(started.address).build().unwrap();
        let anonymous = Actor::over_tls(client, started.address.port(), None);
        eventually("ready", async || anonymous.get("/health/ready").await.status == 200).await;
        started
    }

    /// The app shared by all tests that leave no state which another test could notice.
    pub fn shared(&'static self) -> &'static TestApp {
        self.shared.get_or_init(|| {
            // Its own runtime outlives the test that happens to be first.
            let (sender, receiver) = mpsc::channel();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    sender.send(self.start_with(&UNTHROTTLED).await).unwrap();
                    std::future::pending::<()>().await;
                });
            });
            receiver.recv().expect("the shared app starts")
        })
    }
}

impl fmt::Debug for TestService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestService").finish_non_exhaustive()
    }
}
