//! A Redis server for a single test ([`Redis`]), which it may kill, suspend and restart.
//!
//! The server runs in a container of `TEST_REDIS_IMAGE` (default `redis:7-alpine`), if Docker
//! responds and has or gets the image; else it is the machine's `redis-server`.
//! `TEST_REDIS=container` or `=private` requires one of them, `TEST_REDIS=required` either; `off`
//! skips the tests that need it.

use std::{
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use testcontainers::{ContainerAsync, GenericImage, ImageExt, core::IntoContainerPort, runners::AsyncRunner};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::{eventually, free_address, optional_tool::OptionalTool, postgres::remove_at_exit};

const TOOL: OptionalTool =
    OptionalTool { topic: "quotas", variable: "TEST_REDIS", tests: "the tests of shared quotas" };
const PORT: u16 = 6379;
/// The folder for the test's files inside a container.
const CONTAINER_FILES: &str = "/tmp";

/// A server on its own port.
pub struct Redis {
    /// Its port on the loopback address.
    pub port: u16,
    files: Vec<(String, String)>,
    options: Vec<String>,
    process: Process,
}

enum Process {
    Private { folder: PathBuf, child: Option<Child> },
    Container { container: Box<ContainerAsync<GenericImage>>, _reaper: Option<Child> },
}

/// How this run can start Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Container,
    Private,
    /// Not at all, and the tests that need it are skipped.
    Unavailable,
}

impl Redis {
    /// Starts a server. `None` if Redis is unavailable, which one of the run's first lines says;
    /// panics if it is required.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[], &[]).await
    }

    /// Starts with these files and options; `{files}` in an option stands for the files' folder and
    /// `{port}` for the port.
    pub async fn start_with(files: &[(&str, String)], options: &[&str]) -> Option<Self> {
        let port = free_address().port();
        let files: Vec<_> = files.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let process = match kind().await {
            Kind::Unavailable => return None,
            Kind::Private => {
                let folder = crate::scratch_folder().join(format!("redis-{}", Uuid::now_v7()));
                std::fs::create_dir_all(&folder).unwrap();
                Process::Private { folder, child: None }
            }
            Kind::Container => start_container(port, &files, &options).await.unwrap(),
        };
        let mut redis = Self { port, files, options, process };
        redis.restart().await;
        Some(redis)
    }

    /// The URL without TLS and password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// All keys in the store.
    pub async fn keys(&self) -> Vec<String> {
        self.query(redis::cmd("KEYS").arg("*")).await
    }

    /// The time to live of a key, in seconds.
    pub async fn expires_in(&self, key: &str) -> i64 {
        self.query(redis::cmd("TTL").arg(key)).await
    }

    /// Runs a command.
    pub async fn run(&self, command: &redis::Cmd) {
        self.query::<redis::Value>(command).await;
    }

    async fn query<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        command.query_async(&mut client.get_multiplexed_async_connection().await.unwrap()).await.unwrap()
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        match &mut self.process {
            Process::Private { child, .. } => {
                let mut child = child.take().expect("the server runs");
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Process::Container { container, .. } => docker(&["kill", container.id()]),
        }
    }

    /// Starts the server again, empty and on the same port, and waits until it responds. A running
    /// server is left alone.
    pub async fn restart(&mut self) {
        match &mut self.process {
            Process::Private { folder, child } if child.is_none() => {
                for (name, text) in &self.files {
                    std::fs::write(folder.join(name), text).unwrap();
                }
                let files = folder.to_str().unwrap();
                let port = self.port.to_string();
                let options = self.options.iter();
                let started = Command::new("redis-server")
                    .args(["--save", "", "--bind", "127.0.0.1", "--port", &port, "--dir", files])
                    .args(options.map(|option| option.replace("{files}", files).replace("{port}", &port)))
                    .stdout(Stdio::null())
                    .process_group(0)
                    .spawn();
                *child = Some(started.unwrap());
            }
            Process::Private { .. } => {}
            Process::Container { container, .. } => docker(&["start", container.id()]),
        }
        let port = self.port;
        let tls = self.options.iter().any(|option| option == "--tls-port");
        eventually("Redis responds", async || responds(port, tls)).await;
    }

    /// Stops the server's process, which keeps its connections, until it is resumed.
    pub fn suspend(&self) {
        self.signal("STOP");
    }

    /// Continues after [`Self::suspend`].
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        match &self.process {
            Process::Private { child, .. } => {
                let pid = child.as_ref().expect("the server runs").id().to_string();
                assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
            }
            Process::Container { container, .. } => {
                docker(&[if signal == "STOP" { "pause" } else { "unpause" }, container.id()]);
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Process::Private { folder, child } = &mut self.process {
            if let Some(child) = child {
                let _ = child.kill();
                let _ = child.wait();
            }
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Whether the server responds to `PING`. A successful connect is not enough: a container's port is
/// open before the server listens. A port with TLS closes the connection instead, so there a
/// successful write counts, and the test has to wait for the server itself.
fn responds(port: u16, tls: bool) -> bool {
    let Ok(mut socket) = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let _ = socket.set_read_timeout(Some(Duration::from_millis(500)));
    let mut answer = [0];
    socket.write_all(b"PING\r\n").is_ok() && (tls || socket.read(&mut answer).is_ok_and(|read| read > 0))
}

async fn kind() -> Kind {
    static KIND: OnceCell<Kind> = OnceCell::const_new();
    *KIND.get_or_init(find_kind).await
}

async fn find_kind() -> Kind {
    let setting = TOOL.setting();
    let has_private =
        || Command::new("redis-server").arg("--version").output().is_ok_and(|output| output.status.success());
    if setting.as_deref() == Some("off") {
        return Kind::Unavailable;
    }
    if setting.as_deref() != Some("private") {
        match start_container(0, &[], &[]).await {
            Ok(_) => return Kind::Container,
            Err(reason) if setting.as_deref() == Some("container") => {
                panic!("TEST_REDIS requires a container, but: {reason}")
            }
            Err(_) => {}
        }
    }
    if has_private() {
        return Kind::Private;
    }
    let required = TOOL.is_required();
    assert!(!required, "TEST_REDIS or CI requires Redis, but there is neither Docker with an image nor redis-server");
    Kind::Unavailable
}

/// Announces at the start of a run whether the tests of the shared store can run.
pub async fn begin() {
    TOOL.announce(match kind().await {
        Kind::Container => "Redis in containers",
        Kind::Private => "a private Redis for each test that needs one",
        Kind::Unavailable => "NO Redis: the tests of shared quotas are SKIPPED (install redis-server)",
    });
}

/// Starts a container whose server listens on this port of the machine, or on none for 0.
async fn start_container(port: u16, files: &[(String, String)], options: &[String]) -> Result<Process, String> {
    let image = std::env::var("TEST_REDIS_IMAGE").unwrap_or_else(|_| "redis:7-alpine".to_owned());
    let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
    let options =
        options.iter().map(|option| option.replace("{files}", CONTAINER_FILES).replace("{port}", &PORT.to_string()));
    let defaults = ["--save", "", "--protected-mode", "no", "--bind", "0.0.0.0", "--dir", CONTAINER_FILES];
    let mut request = GenericImage::new(name, tag)
        .with_exposed_port(PORT.tcp())
        .with_entrypoint("redis-server")
        .with_cmd(defaults.map(str::to_owned).into_iter().chain(options));
    if port != 0 {
        request = request.with_mapped_port(port, PORT.tcp());
    }
    for (name, text) in files {
        request = request.with_copy_to(format!("{CONTAINER_FILES}/{name}"), text.clone().into_bytes());
    }
    let container = request.start().await.map_err(|error| error.to_string())?;
    let reaper = remove_at_exit(container.id());
    Ok(Process::Container { container: Box::new(container), _reaper: reaper })
}

fn docker(arguments: &[&str]) {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
