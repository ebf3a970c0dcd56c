//! One PostgreSQL server for the run, one database per test.
//!
//! `TEST_DATABASE_URL` (a superuser's) wins; else a container, if Docker answers and has or gets the
//! image `TEST_POSTGRES_IMAGE` (default `postgres:15-alpine`); else a private server.
//! `TEST_POSTGRES=container` or `=private` insists on one of them.

use std::{
    cell::RefCell,
    fs::File,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    time::Duration,
};

use secrecy::ExposeSecret;
use service::{
    dev::{
        database::{Cluster, Urls},
        demo,
        postgres::{Binaries, Data, Durability, Server},
    },
    domain::Clock,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{IntoContainerPort, Mount},
    runners::AsyncRunner,
};
use uuid::Uuid;

const TEMPLATE: &str = "test_template";
/// Databases and roles of earlier runs are dropped when they are older than this.
const KEEP_SECONDS: u64 = 1800;

/// What a run's databases live on. Whatever it is, it ends with this process.
pub(super) struct Provider {
    pub(super) cluster: Cluster,
    janitor: mpsc::Sender<String>,
    _holder: Holder,
}

/// What has to live as long as the databases.
enum Holder {
    /// Nothing: the server is not ours.
    None,
    Private {
        _server: Box<Server>,
        _slot: File,
    },
    Container {
        _container: Box<ContainerAsync<GenericImage>>,
        _reaper: Option<Child>,
    },
}

impl Provider {
    fn new(cluster: Cluster, holder: Holder) -> Self {
        Self { janitor: janitor(cluster.clone()), cluster, _holder: holder }
    }
}

static PROVIDER: OnceLock<Provider> = OnceLock::new();

/// A database for one test, with the schema and the demo data. It is dropped when the test ends.
pub async fn test_database() -> Urls {
    provider().cluster.clone_database(&template_name(), &own_name()).await.unwrap()
}

/// A database without a schema.
pub async fn empty_database() -> Urls {
    provider().cluster.create_empty(&own_name()).await.unwrap()
}

/// The name of a database that this test's thread owns.
fn own_name() -> String {
    let name = format!("test_{}_{}", now(), Uuid::now_v7().simple());
    OWNED.with_borrow_mut(|owned| owned.push(Owned(name.clone())));
    name
}

thread_local! {
    static OWNED: RefCell<Vec<Owned>> = RefCell::default();
}

/// A database that is dropped with the thread of its test.
struct Owned(String);

impl Drop for Owned {
    fn drop(&mut self) {
        // Without a receiver the run is over.
        let _ = provider().janitor.send(std::mem::take(&mut self.0));
    }
}

/// Drops databases whose tests have ended, in a thread of its own.
fn janitor(cluster: Cluster) -> mpsc::Sender<String> {
    let (sender, names) = mpsc::channel::<String>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut admin = cluster.connect().await.unwrap();
            while let Ok(name) = names.recv() {
                // What cannot be dropped is, by a later run.
                let drop = AssertSqlSafe(format!("drop database if exists \"{name}\" with (force)"));
                let _ = sqlx::raw_sql(drop).execute(&mut admin).await;
            }
        });
    });
    sender
}

/// The folder of PostgreSQL's programs.
pub async fn programs() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-binaries");
    Binaries::find_or_fetch(&cache, announce).await.unwrap().folder().to_owned()
}

pub(super) fn provider() -> &'static Provider {
    // In a thread of its own, with a runtime of its own: tests call this from theirs.
    PROVIDER.get_or_init(|| {
        let start = || tokio::runtime::Runtime::new().unwrap().block_on(start());
        std::thread::spawn(start).join().expect("the test database starts")
    })
}

async fn start() -> Provider {
    crate::interop::begin();
    super::redis::begin().await;
    let insisted = std::env::var("TEST_POSTGRES").ok();
    let provider = if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
        announce("PostgreSQL of TEST_DATABASE_URL");
        Provider::new(Cluster::new(&url).unwrap(), Holder::None)
    } else if insisted.as_deref() == Some("private") {
        private().await
    } else {
        match container().await {
            Ok(provider) => provider,
            Err(reason) if insisted.is_none() => {
                announce(&format!("no container ({reason})"));
                private().await
            }
            Err(reason) => panic!("TEST_POSTGRES insists on a container, but: {reason}"),
        }
    };
    prepare(&provider.cluster).await;
    provider
}

/// Makes the template, once per server and schema, and drops what earlier runs left.
async fn prepare(cluster: &Cluster) {
    let urls = cluster.provision(&template_name()).await.unwrap();
    let mut owner = PgConnection::connect(urls.owner.expose_secret()).await.unwrap();
    demo::seed(&mut owner, &urls).await.unwrap();
    owner.close().await.unwrap();
    let mut admin = cluster.connect().await.unwrap();
    // Databases first: a role may be used there.
    let left = "select datname::text, 'database', 'with (force)' from pg_database where datname ~ '^test_[0-9]+_'
                union all
                select rolname, 'role', '' from pg_roles where rolname ~ '^test_[0-9]+_'";
    let left: Vec<(String, String, String)> = sqlx::query_as(left).fetch_all(&mut admin).await.unwrap();
    for (name, what, how) in left {
        let made: u64 = name.split('_').nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
        if now().saturating_sub(made) > KEEP_SECONDS {
            let drop = AssertSqlSafe(format!("drop {what} if exists \"{name}\" {how}"));
            let _ = sqlx::raw_sql(drop).execute(&mut admin).await;
        }
    }
    admin.close().await.unwrap();
}

/// Named after the schema, so that a changed one gets a template of its own.
fn template_name() -> String {
    let migrations = sqlx::migrate!();
    let mut text: Vec<u8> = migrations.iter().flat_map(|m| m.checksum.to_vec()).collect();
    text.extend_from_slice(include_bytes!("../../../src/dev/demo.sql"));
    let digest = service::crypto::hex(&service::crypto::sha256(&text));
    format!("{TEMPLATE}_{digest:.12}")
}

async fn private() -> Provider {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let progress = |what: &str| announce(what);
    let binaries = Binaries::find_or_fetch(&target.join("postgres-binaries"), progress).await.unwrap();
    let (folder, slot) = free_slot(target);
    // In memory, where copying and dropping a database takes a tenth of the time, if there is enough of it.
    let folder = in_memory(&folder).unwrap_or(folder);
    // Making a server takes a second; dropping the databases of an earlier run takes half a minute.
    let server = Server::start(&folder, &binaries, Durability::Disposable, Data::Deleted).await.unwrap();
    announce(&format!("a private PostgreSQL from {}", binaries.folder().display()));
    let cluster = Cluster::new(server.url()).unwrap();
    cluster.cheapen_superuser().await.unwrap();
    Provider::new(cluster, Holder::Private { _server: Box::new(server), _slot: slot })
}

/// A folder for this one in the memory of the machine, if a gigabyte of that is free.
fn in_memory(folder: &Path) -> Option<PathBuf> {
    let shared = Path::new("/dev/shm");
    let memory = rustix::fs::statvfs(shared).ok()?;
    let digest = service::crypto::hex(&service::crypto::sha256(folder.as_os_str().as_encoded_bytes()));
    let name = format!("{}-{digest:.12}", env!("CARGO_PKG_NAME"));
    (memory.f_bavail * memory.f_frsize > 1 << 30).then(|| shared.join(name))
}

/// A data folder that no other test process uses: runners may start one process per test.
fn free_slot(target: &Path) -> (PathBuf, File) {
    (0..256)
        .find_map(|slot| {
            let file = File::create(target.join(format!("postgres-{slot}.lock"))).unwrap();
            file.try_lock().ok().map(|()| (target.join(format!("postgres-{slot}")), file))
        })
        .expect("a free data folder")
}

async fn container() -> Result<Provider, String> {
    let image = std::env::var("TEST_POSTGRES_IMAGE").unwrap_or_else(|_| "postgres:15-alpine".to_owned());
    let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
    let password = Uuid::now_v7().simple().to_string();
    let container = GenericImage::new(name, tag)
        .with_exposed_port(5432.tcp())
        .with_env_var("POSTGRES_PASSWORD", &password)
        .with_mount(Mount::tmpfs_mount("/var/lib/postgresql/data"))
        .with_cmd([
            "postgres",
            "-c",
            "fsync=off",
            "-c",
            "synchronous_commit=off",
            "-c",
            "max_connections=300",
            "-c",
            "autovacuum=off",
        ])
        .start()
        .await
        .map_err(|error| error.to_string())?;
    let reaper = remove_at_exit(container.id());
    let host = container.get_host().await.map_err(|error| error.to_string())?;
    let port = container.get_host_port_ipv4(5432).await.map_err(|error| error.to_string())?;
    let url = format!("postgres://postgres:{password}@{host}:{port}/postgres");
    let cluster = Cluster::new(&url).unwrap();
    // It listens only after it has set itself up, and restarts once while doing so.
    for _ in 0..300 {
        if let Ok(connection) = cluster.connect().await {
            connection.close().await.unwrap();
            cluster.cheapen_superuser().await.unwrap();
            announce(&format!("PostgreSQL in a container of {image}"));
            return Ok(Provider::new(cluster, Holder::Container { _container: Box::new(container), _reaper: reaper }));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("the container of {image} does not answer"))
}

/// A static is never dropped, so nothing of this process could remove the container at its end.
/// This child can: its standard input closes when this process is gone, however it went.
pub fn remove_at_exit(id: &str) -> Option<Child> {
    Command::new("sh")
        .args(["-c", "read -r _; docker rm --force --volumes \"$1\"", "reaper", id])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

/// Past the test harness's capture: this belongs to the run, not to the test that happened to be first.
fn announce(what: &str) {
    let _ = writeln!(std::io::stderr(), "test database: {what}");
}

/// Seconds since the epoch.
pub(super) fn now() -> u64 {
    Clock::system().timestamp().unsigned_abs()
}
