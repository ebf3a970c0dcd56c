//! Starts and stops the private PostgreSQL server.
//!
//! The server runs under a small shell supervisor that stops it when this program ends, even by
//! `kill -9`. One folder holds data, password, log and a lock: one server per folder at a time.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    net::TcpListener,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection};

use super::{Binaries, account::Account};
use crate::{
    crypto,
    dev::{DevError, failed, files::write_private},
};

/// Time limit for the first connection after startup, crash recovery included.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// Time limit for a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Shell script that runs the server and stops it when the pipe on descriptor 3 closes.
///
/// This program holds the other end, which the kernel closes however the program ends, `kill -9`
/// included. That needs no unsafe code and no signal handler. If the first argument is not empty,
/// the script deletes that folder after the server ended.
const SUPERVISOR: &str = r#"
exec 3<&0 </dev/null
disposable="$1"
shift
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill -INT "$server"; } 2>/dev/null &
watcher=$!
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
[ -z "$disposable" ] || rm -rf "$disposable"
exit "$status"
"#;

/// What happens to the data of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Kept between runs.
    Kept,
    /// Kept, but that of earlier runs is deleted first.
    Fresh,
    /// For tests: deleted first and when the server ends; writes are not flushed to disk.
    Disposable,
}

/// A running server. Dropping it stops the server; [`Server::stop`] also waits for the end.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pipe: Option<ChildStdin>,
    url: String,
    // Keeps the lock for the lifetime of the server.
    _lock: File,
}

impl Server {
    /// Starts a server with its data in `root`. Runs `initdb` there if `root` has no data.
    pub async fn start(root: &Path, binaries: &Binaries, kind: Data) -> Result<Self, DevError> {
        let account = Account::find()?;
        let root = usable_root(root, account)?;
        let lock = lock(&root)?;
        let data = root.join("data");
        let password = password(&root, account)?;
        if data.join("postmaster.pid").exists() {
            stop_leftover(&data, binaries, account);
        }
        if kind != Data::Kept && data.exists() {
            fs::remove_dir_all(&data).map_err(failed(format!("cannot delete {}", data.display())))?;
        }
        if !data.join("PG_VERSION").exists() {
            initdb(&root, &data, binaries, account)?;
        }
        let port = free_port()?;
        let log = root.join("postgres.log");
        let mut child = spawn(&data, &log, port, binaries, account, kind)?;
        let pipe = child.stdin.take();
        let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
        let server = Self { child, pipe, url, _lock: lock };
        server.wait_until_ready(&log).await
    }

    /// Connection URL of the superuser.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops the server (fast shutdown): open transactions are rolled back, committed data is on
    /// disk.
    pub async fn stop(mut self) {
        drop(self.pipe.take());
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < STOP_TIMEOUT {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn wait_until_ready(mut self, log: &Path) -> Result<Self, DevError> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("PostgreSQL ended during its start ({status}); see {}", log.display()).into());
            }
            match PgConnection::connect(&self.url).await {
                Ok(connection) => {
                    let _ = connection.close().await;
                    return Ok(self);
                }
                Err(error) if started.elapsed() > START_TIMEOUT => {
                    return Err(format!("PostgreSQL accepts no connection: {error}; see {}", log.display()).into());
                }
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }
}

/// Returns `root`, or a folder below `/var/tmp` if the account has no access to `root`, as in a
/// checkout below `/root`.
fn usable_root(root: &Path, account: Account) -> Result<PathBuf, DevError> {
    let absolute = std::path::absolute(root).map_err(failed("cannot find the working directory"))?;
    let digest = crypto::hex(&crypto::sha256(absolute.as_os_str().as_encoded_bytes()));
    let fallback = PathBuf::from("/var/tmp").join(format!("{}-{digest:.12}", crate::package::name()));
    for candidate in [absolute, fallback] {
        let message = format!("cannot use {}", candidate.display());
        create_private(&candidate, account).map_err(failed(message))?;
        if account.can_use(&candidate) {
            return Ok(candidate);
        }
    }
    Err("the account that runs PostgreSQL can use neither folder".into())
}

/// Creates a folder that only the account can access.
///
/// An existing folder must belong to the account or the current user and be closed to group and
/// others. Otherwise another user could have planted links or server settings in it.
fn create_private(folder: &Path, account: Account) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => account.take_ownership(folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(folder)?;
            // No bit for the group or for others.
            let is_private = metadata.permissions().mode().trailing_zeros() >= 6;
            if metadata.is_dir() && is_private && account.trusts_owner(metadata.uid()) {
                account.take_ownership(folder)
            } else {
                Err(io::Error::other("it exists, and is not a private folder of this user"))
            }
        }
        Err(error) => Err(error),
    }
}

/// Locks the folder: one server per folder. The kernel releases the lock when the process ends.
fn lock(root: &Path) -> Result<File, DevError> {
    let path = root.join("lock");
    let file = File::create(&path).map_err(failed(format!("cannot write {}", path.display())))?;
    file.try_lock().map_err(|_| format!("{} is in use by another run; stop that first", root.display()))?;
    Ok(file)
}

/// Loads the superuser's password, or generates it. The file is readable by the account only.
fn password(root: &Path, account: Account) -> Result<String, DevError> {
    let path = root.join("superuser-password");
    if let Ok(password) = fs::read_to_string(&path) {
        return Ok(password);
    }
    let password = crypto::hex(&crypto::random::<24>()?);
    // Write, then rename: an interrupted run leaves no truncated password.
    let temporary = root.join("superuser-password.new");
    let write = || {
        write_private(&temporary, &password)?;
        account.take_ownership(&temporary)?;
        fs::rename(&temporary, &path)
    };
    write().map_err(failed(format!("cannot write {}", path.display())))?;
    Ok(password)
}

/// Runs `initdb` in a temporary folder, then renames it: an interrupted run leaves no partial data.
fn initdb(root: &Path, data: &Path, binaries: &Binaries, account: Account) -> Result<(), DevError> {
    let temporary = root.join("data.new");
    let _ = fs::remove_dir_all(&temporary);
    let mut initdb = account.command(&binaries.program("initdb"));
    initdb.current_dir(root).args(["--username=postgres", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]);
    initdb.args(["--data-checksums", "--no-sync", "--pwfile"]).arg(root.join("superuser-password"));
    let output = initdb.arg("-D").arg(&temporary).output().map_err(failed("cannot run initdb"))?;
    if !output.status.success() {
        return Err(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    fs::rename(&temporary, data).map_err(failed("cannot rename the new data folder"))
}

/// Stops a server that outlived its supervisor. This process holds the lock, so the server has no
/// user.
///
/// `postmaster.pid` can be older than the last boot, and its process id may belong to another
/// program by now: so only a process that was started with this folder as `-D` is stopped.
fn stop_leftover(data: &Path, binaries: &Binaries, account: Account) {
    let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let Some(Ok(pid)) = file.lines().next().map(|line| line.trim().parse::<u32>()) else { return };
    let ps = Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).output();
    let arguments = ps.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if !arguments.contains(&format!("-D {}", data.display())) {
        return;
    }
    let mut pg_ctl = account.command(&binaries.program("pg_ctl"));
    pg_ctl.current_dir("/").arg("-D").arg(data).args(["-m", "fast", "-w", "-t", "15", "stop"]);
    // This fails if no server runs any more. The next start handles the leftover file.
    let _ = pg_ctl.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn spawn(
    data: &Path,
    log: &Path,
    port: u16,
    binaries: &Binaries,
    account: Account,
    kind: Data,
) -> Result<Child, DevError> {
    let stdout = OpenOptions::new().create(true).append(true).open(log);
    let stdout = stdout.map_err(failed("cannot open the log of PostgreSQL"))?;
    let stderr = stdout.try_clone()?;
    let mut command = account.command(Path::new("/bin/sh"));
    // A separate process group: Ctrl-C reaches this program only, which then stops the server.
    command.current_dir("/").args(["-c", SUPERVISOR, "supervisor"]).process_group(0);
    command.arg(if kind == Data::Disposable { data } else { Path::new("") });
    command.arg(binaries.program("postgres")).arg("-D").arg(data);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", ""]);
    if kind == Data::Disposable {
        // Eight tests at once, some with three replicas, have more than 300 connections.
        command.args(["-c", "max_connections=1000"]);
        command.args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]);
        // Hundreds of short-lived databases would keep the autovacuum workers busy.
        command.args(["-c", "autovacuum=off"]);
    }
    command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
    command.spawn().map_err(failed("cannot start PostgreSQL"))
}

fn free_port() -> Result<u16, DevError> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
