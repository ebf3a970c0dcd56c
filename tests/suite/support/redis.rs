//! A Redis of a test's own, which it may kill.
//!
//! In a container, if Docker answers and has or gets the image `TEST_REDIS_IMAGE` (default `redis:7-alpine`); else
//! the machine's `redis-server`. `TEST_REDIS=container` or `=private` insists on one of them, and
//! `TEST_REDIS=required` on either. `off` leaves out what needs it.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use testcontainers::{ContainerAsync, GenericImage, ImageExt, core::IntoContainerPort, runners::AsyncRunner};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::{eventually, postgres::remove_at_exit, wanted::Wanted};

const WANTED: Wanted = Wanted { topic: "quotas", variable: "TEST_REDIS", tests: "the tests of shared quotas" };
const PORT: u16 = 6379;
/// Where files are in a container.
const FILES: &str = "/tmp";

/// A server on a port of its own.
pub struct Redis {
    pub port: u16,
    files: Vec<(String, String)>,
    options: Vec<String>,
    process: Process,
}

enum Process {
    Private { folder: PathBuf, child: Option<Child> },
    Container { container: Box<ContainerAsync<GenericImage>>, _reaper: Option<Child> },
}

/// What this run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Container,
    Private,
    /// And it may.
    Neither,
}

impl Redis {
    /// `None` if there is none here, which the run's first lines say, and which is a failure where it is required.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[], &[]).await
    }

    /// With these files beside it, and these options; `{files}` in them is where those are.
    pub async fn start_with(files: &[(&str, String)], options: &[&str]) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let files: Vec<_> = files.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let process = match kind().await {
            Kind::Neither => return None,
            Kind::Private => {
                let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("redis-{}", Uuid::now_v7()));
                std::fs::create_dir_all(&folder).unwrap();
                Process::Private { folder, child: None }
            }
            Kind::Container => container(port, &files, &options).await.unwrap(),
        };
        let mut redis = Self { port, files, options, process };
        redis.revive().await;
        Some(redis)
    }

    /// Without TLS and password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// All that it holds.
    pub async fn keys(&self) -> Vec<String> {
        self.ask(redis::cmd("KEYS").arg("*")).await
    }

    /// In how many seconds a key ends.
    pub async fn expires_in(&self, key: &str) -> i64 {
        self.ask(redis::cmd("TTL").arg(key)).await
    }

    /// Does something there.
    pub async fn run(&self, command: &redis::Cmd) {
        self.ask::<redis::Value>(command).await;
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        command.query_async(&mut client.get_multiplexed_async_connection().await.unwrap()).await.unwrap()
    }

    /// At once, as `kill -9` does.
    pub fn kill(&mut self) {
        match &mut self.process {
            Process::Private { child, .. } => {
                let mut child = child.take().expect("it runs");
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Process::Container { container, .. } => docker(&["kill", container.id()]),
        }
    }

    /// Empty, on the same port. If it runs, it is only waited for.
    pub async fn revive(&mut self) {
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
        eventually("Redis answers", async || speaks(port, tls)).await;
    }

    /// It stays connected and says nothing more, until it is resumed.
    pub fn suspend(&self) {
        self.signal("STOP");
    }

    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        match &self.process {
            Process::Private { child, .. } => {
                let pid = child.as_ref().expect("it runs").id().to_string();
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

/// In a container the port is open before anybody listens: only what speaks counts. With TLS it hangs up, and whoever
/// uses it has to wait.
fn speaks(port: u16, tls: bool) -> bool {
    let Ok(mut socket) = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let _ = socket.set_read_timeout(Some(Duration::from_millis(500)));
    let mut answer = [0];
    socket.write_all(b"PING\r\n").is_ok() && (tls || socket.read(&mut answer).is_ok_and(|read| read > 0))
}

async fn kind() -> Kind {
    static KIND: OnceCell<Kind> = OnceCell::const_new();
    *KIND.get_or_init(find).await
}

async fn find() -> Kind {
    let insisted = WANTED.said();
    let has_private =
        || Command::new("redis-server").arg("--version").output().is_ok_and(|output| output.status.success());
    if insisted.as_deref() == Some("off") {
        return Kind::Neither;
    }
    if insisted.as_deref() != Some("private") {
        match container(0, &[], &[]).await {
            Ok(_) => return Kind::Container,
            Err(reason) if insisted.as_deref() == Some("container") => {
                panic!("TEST_REDIS insists on a container, but: {reason}")
            }
            Err(_) => {}
        }
    }
    if has_private() {
        return Kind::Private;
    }
    let required = WANTED.is_required();
    assert!(!required, "TEST_REDIS or CI asks for Redis, and there is neither Docker with an image nor redis-server");
    Kind::Neither
}

/// Says at the start of a run whether the tests of the shared store can be made.
pub async fn begin() {
    WANTED.announce(match kind().await {
        Kind::Container => "Redis in containers",
        Kind::Private => "a private Redis for each test that needs one",
        Kind::Neither => "NO Redis: the tests of shared quotas are LEFT OUT (install redis-server)",
    });
}

/// On this port of the machine; on none for 0.
async fn container(port: u16, files: &[(String, String)], options: &[String]) -> Result<Process, String> {
    let image = std::env::var("TEST_REDIS_IMAGE").unwrap_or_else(|_| "redis:7-alpine".to_owned());
    let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
    let options = options.iter().map(|option| option.replace("{files}", FILES).replace("{port}", &PORT.to_string()));
    let usual = ["--save", "", "--protected-mode", "no", "--bind", "0.0.0.0", "--dir", FILES].map(str::to_owned);
    let mut request = GenericImage::new(name, tag)
        .with_exposed_port(PORT.tcp())
        .with_entrypoint("redis-server")
        .with_cmd(usual.into_iter().chain(options));
    if port != 0 {
        request = request.with_mapped_port(port, PORT.tcp());
    }
    for (name, text) in files {
        request = request.with_copy_to(format!("{FILES}/{name}"), text.clone().into_bytes());
    }
    let container = request.start().await.map_err(|error| error.to_string())?;
    let reaper = remove_at_exit(container.id());
    Ok(Process::Container { container: Box::new(container), _reaper: reaper })
}

fn docker(arguments: &[&str]) {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
