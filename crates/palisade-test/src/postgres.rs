//! The PostgreSQL server of a test run, with one database for each test.
//!
//! The server is, in this order: that of `TEST_DATABASE_URL` (a superuser's URL); a container of
//! `TEST_POSTGRES_IMAGE` (default `postgres:15-alpine`), if Docker responds and has or gets the
//! image; a private server. `TEST_POSTGRES=container` or `=private` requires one of the last two.

use std::{
    cell::RefCell,
    fs::File,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, SystemTime},
};

use palisade::{
    dev::{
        database::{Cluster, Urls},
        postgres::{Binaries, Data, Server},
    },
    model::Clock,
};
use sqlx::{AssertSqlSafe, Connection};
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{IntoContainerPort, Mount},
    runners::AsyncRunner,
};
use uuid::Uuid;

use crate::scratch_folder;

/// Age in seconds at which databases and roles of earlier runs are dropped.
const KEEP_SECONDS: u64 = 1800;
/// Age in seconds of a test program at which its template is dropped: a week.
const KEEP_TEMPLATE_SECONDS: u64 = 604_800;

/// The server with the run's databases. A server that the run has started ends with this process.
pub(crate) struct Provider {
    pub(crate) cluster: Cluster,
    janitor: mpsc::Sender<String>,
    _holder: Holder,
}

/// What must live as long as the databases.
enum Holder {
    /// Nothing: this run has not started the server.
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

/// A copy of a database, for one test; dropped when the test ends.
pub(crate) async fn copy_of(template: &str) -> Urls {
    provider().cluster.create(&new_name(), Some(template)).await.unwrap()
}

/// A database without a schema, for one test.
pub async fn empty_database() -> Urls {
    provider().cluster.create(&new_name(), None).await.unwrap()
}

/// A name for a database, which is dropped when the thread of this test ends.
fn new_name() -> String {
    let name = format!("test_{}_{}", now(), Uuid::now_v7().simple());
    OWNED.with_borrow_mut(|owned| owned.push(Owned(name.clone())));
    name
}

thread_local! {
    static OWNED: RefCell<Vec<Owned>> = RefCell::default();
}

/// The name of a database that is dropped with the thread of its test.
struct Owned(String);

impl Drop for Owned {
    fn drop(&mut self) {
        // Sending fails only at the end of the run.
        let _ = provider().janitor.send(std::mem::take(&mut self.0));
    }
}

/// Starts a thread that drops databases whose tests have ended.
fn janitor(cluster: Cluster) -> mpsc::Sender<String> {
    let (sender, names) = mpsc::channel::<String>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut admin = cluster.connect().await.unwrap();
            while let Ok(name) = names.recv() {
                // A later run drops what cannot be dropped now.
                let drop = AssertSqlSafe(format!("drop database if exists \"{name}\" with (force)"));
                let _ = sqlx::raw_sql(drop).execute(&mut admin).await;
            }
        });
    });
    sender
}

/// The folder with PostgreSQL's programs.
pub async fn programs() -> PathBuf {
    let cache = scratch_folder().join("postgres-binaries");
    Binaries::find_or_fetch(&cache, announce).await.unwrap().folder().to_owned()
}

pub(crate) fn provider() -> &'static Provider {
    // A separate thread with its own runtime: tests call this from inside theirs.
    PROVIDER.get_or_init(|| {
        let start = || tokio::runtime::Runtime::new().unwrap().block_on(start());
        std::thread::spawn(start).join().expect("the test database starts")
    })
}

async fn start() -> Provider {
    crate::redis::begin().await;
    let required = std::env::var("TEST_POSTGRES").ok();
    let provider = if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
        announce("PostgreSQL of TEST_DATABASE_URL");
        Provider::new(Cluster::new(&url).unwrap(), Holder::None)
    } else if required.as_deref() == Some("private") {
        start_private().await
    } else {
        match start_container().await {
            Ok(provider) => provider,
            Err(reason) if required.is_none() => {
                announce(&format!("no container ({reason})"));
                start_private().await
            }
            Err(reason) => panic!("TEST_POSTGRES requires a container, but: {reason}"),
        }
    };
    drop_stale(&provider.cluster).await;
    provider
}

/// Drops what earlier runs have left behind.
async fn drop_stale(cluster: &Cluster) {
    let mut admin = cluster.connect().await.unwrap();
    // Databases first: a role may still have rights in one.
    let stale =
        "select datname::text, 'database', 'with (force)' from pg_database where datname ~ '^(test|template)_[0-9]+_'
                union all
                select rolname, 'role', '' from pg_roles where rolname ~ '^test_[0-9]+_'";
    let stale: Vec<(String, String, String)> = sqlx::query_as(stale).fetch_all(&mut admin).await.unwrap();
    for (name, kind, option) in stale {
        let created: u64 = name.split('_').nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
        let keep = if name.starts_with("template_") { KEEP_TEMPLATE_SECONDS } else { KEEP_SECONDS };
        if now().saturating_sub(created) > keep {
            let drop = AssertSqlSafe(format!("drop {kind} if exists \"{name}\" {option}"));
            let _ = sqlx::raw_sql(drop).execute(&mut admin).await;
        }
    }
    admin.close().await.unwrap();
}

/// The name of the database from which this test program copies. It has the time at which the
/// program was built, so that a changed schema or other demo data get a new one.
pub(crate) fn template_name() -> String {
    let program = std::env::current_exe().unwrap();
    let built = program.metadata().unwrap().modified().unwrap();
    let built = built.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let digest = palisade::crypto::sha256(program.as_os_str().as_encoded_bytes());
    format!("template_{}_{}_{:.12}", built.as_secs(), built.subsec_nanos(), palisade::crypto::hex(&digest))
}

async fn start_private() -> Provider {
    let target = &scratch_folder();
    let progress = |what: &str| announce(what);
    let binaries = Binaries::find_or_fetch(&target.join("postgres-binaries"), progress).await.unwrap();
    let (folder, slot) = free_slot(target);
    // In memory, copying and dropping a database takes a tenth of the time.
    let folder = memory_folder(&folder).unwrap_or(folder);
    // Initialising a server takes a second; dropping an earlier run's databases takes half a
    // minute.
    let server = Server::start(&folder, &binaries, Data::Disposable).await.unwrap();
    announce(&format!("a private PostgreSQL from {}", binaries.folder().display()));
    let cluster = Cluster::new(server.url()).unwrap();
    cluster.lower_superuser_iterations().await.unwrap();
    Provider::new(cluster, Holder::Private { _server: Box::new(server), _slot: slot })
}

/// A folder in shared memory to use in place of this one, if a gigabyte is free there.
fn memory_folder(folder: &Path) -> Option<PathBuf> {
    let shared = Path::new("/dev/shm");
    let memory = rustix::fs::statvfs(shared).ok()?;
    let digest = palisade::crypto::hex(&palisade::crypto::sha256(folder.as_os_str().as_encoded_bytes()));
    let name = format!("{}-{digest:.12}", palisade::package::name());
    (memory.f_bavail * memory.f_frsize > 1 << 30).then(|| shared.join(name))
}

/// A data folder that no other test process uses (nextest starts one process per test), and its
/// lock.
fn free_slot(target: &Path) -> (PathBuf, File) {
    (0..256)
        .find_map(|slot| {
            let file = File::create(target.join(format!("postgres-{slot}.lock"))).unwrap();
            file.try_lock().ok().map(|()| (target.join(format!("postgres-{slot}")), file))
        })
        .expect("a free data folder")
}

async fn start_container() -> Result<Provider, String> {
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
            "max_connections=1000",
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
    // The image initialises its data first, and restarts the server once while doing so.
    for _ in 0..300 {
        if let Ok(connection) = cluster.connect().await {
            connection.close().await.unwrap();
            cluster.lower_superuser_iterations().await.unwrap();
            announce(&format!("PostgreSQL in a container of {image}"));
            return Ok(Provider::new(cluster, Holder::Container { _container: Box::new(container), _reaper: reaper }));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("the container of {image} does not respond"))
}

/// Starts a child process that removes the container when this process ends in any way: its
/// standard input closes then. This process cannot, since statics are never dropped.
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

/// Writes to standard error past the test harness's capture: the line is about the run, not about
/// the test that happened to be first.
fn announce(what: &str) {
    let _ = writeln!(std::io::stderr(), "test database: {what}");
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    Clock::system().timestamp().unsigned_abs()
}
