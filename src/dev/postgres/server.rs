use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    net::TcpListener,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection};

use super::{Binaries, PostgresError, account::Account, while_trying};
use crate::crypto;

/// For the server to answer after its start, crash recovery included.
const START_LIMIT: Duration = Duration::from_mins(1);
/// For the server to stop.
const STOP_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// Runs the server and stops it when our end of the pipe on descriptor 3 closes, which happens
/// however this program ends, `kill -9` included. That needs no unsafe code and no signal handler. A
/// folder as the first argument is deleted when the server has ended.
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

/// Whether data must survive a crash of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Yes: data is kept between runs.
    Durable,
    /// No, and it is deleted when the server ends: for tests, which make their own.
    Disposable,
}

/// What becomes of the data of earlier runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// It is used again.
    Kept,
    /// It is deleted first.
    Deleted,
}

/// A running server. Stops when dropped; [`Server::stop`] also waits for it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pipe: Option<ChildStdin>,
    url: String,
    // Held for as long as the server runs.
    _lock: File,
}

impl Server {
    /// Starts a server whose data is in `root`, made there if there is none.
    pub async fn start(
        root: &Path,
        binaries: &Binaries,
        durability: Durability,
        earlier: Data,
    ) -> Result<Self, PostgresError> {
        let account = Account::find()?;
        let root = usable_root(root, account)?;
        let lock = lock(&root)?;
        let data = root.join("data");
        let password = password(&root, account)?;
        if data.join("postmaster.pid").exists() {
            stop_leftover(&data, binaries, account);
        }
        if earlier == Data::Deleted && data.exists() {
            fs::remove_dir_all(&data).map_err(while_trying(format!("cannot empty {}", data.display())))?;
        }
        if !data.join("PG_VERSION").exists() {
            initdb(&root, &data, binaries, account)?;
        }
        let port = free_port()?;
        let log = root.join("postgres.log");
        let mut child = spawn(&data, &log, port, binaries, account, durability)?;
        let pipe = child.stdin.take();
        let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
        let server = Self { child, pipe, url, _lock: lock };
        server.wait_until_it_answers(&log).await
    }

    /// A URL of the superuser.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops the server: what runs is rolled back, what was committed is on disk.
    pub async fn stop(mut self) {
        drop(self.pipe.take());
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < STOP_LIMIT {
            tokio::time::sleep(POLL).await;
        }
    }

    async fn wait_until_it_answers(mut self, log: &Path) -> Result<Self, PostgresError> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(PostgresError::Stopped { status, log: log.to_owned() });
            }
            match PgConnection::connect(&self.url).await {
                Ok(connection) => {
                    let _ = connection.close().await;
                    return Ok(self);
                }
                Err(source) if started.elapsed() > START_LIMIT => {
                    return Err(PostgresError::Silent { log: log.to_owned(), source });
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

/// `root`, or a folder beside the system's temporary files if the account has no way into it
/// (a checkout under `/root`, say).
fn usable_root(root: &Path, account: Account) -> Result<PathBuf, PostgresError> {
    let absolute = std::path::absolute(root).map_err(while_trying("cannot find the working directory"))?;
    let digest = crypto::hex(&crypto::sha256(absolute.as_os_str().as_encoded_bytes()));
    let elsewhere = PathBuf::from("/var/tmp").join(format!("{}-{digest:.12}", env!("CARGO_PKG_NAME")));
    for candidate in [absolute, elsewhere] {
        let what = format!("cannot use {}", candidate.display());
        claim(&candidate, account).map_err(while_trying(what))?;
        if account.can_use(&candidate) {
            return Ok(candidate);
        }
    }
    Err(PostgresError::NoAccount)
}

/// Makes the folder for the account alone. One that exists must be ours or the account's already and
/// closed to others: whoever else could have put something in it could have put links or settings there.
fn claim(folder: &Path, account: Account) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => account.own(folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(folder)?;
            // No bit for the group or for others.
            let closed = metadata.permissions().mode().trailing_zeros() >= 6;
            if metadata.is_dir() && closed && account.may_own(metadata.uid()) {
                account.own(folder)
            } else {
                Err(io::Error::other("it exists, and is not a folder of ours that is closed to others"))
            }
        }
        Err(error) => Err(error),
    }
}

/// One server per folder. The lock goes with the process that holds it.
fn lock(root: &Path) -> Result<File, PostgresError> {
    let path = root.join("lock");
    let file = File::create(&path).map_err(while_trying(format!("cannot write {}", path.display())))?;
    file.try_lock().map_err(|_| PostgresError::InUse(root.to_owned()))?;
    Ok(file)
}

/// The superuser's password, made once per folder and readable by the account only.
fn password(root: &Path, account: Account) -> Result<String, PostgresError> {
    let path = root.join("superuser-password");
    if let Ok(password) = fs::read_to_string(&path) {
        return Ok(password);
    }
    let password = crypto::hex(&crypto::random::<24>()?);
    // Under another name first, so that an interrupted run leaves none that is cut off.
    let fresh = root.join("superuser-password.new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(password.as_bytes())?;
        account.own(&fresh)?;
        fs::rename(&fresh, &path)
    };
    write().map_err(while_trying(format!("cannot write {}", path.display())))?;
    Ok(password)
}

/// Into a folder of another name first, so that an interrupted run leaves no half-made data.
fn initdb(root: &Path, data: &Path, binaries: &Binaries, account: Account) -> Result<(), PostgresError> {
    let fresh = root.join("data.new");
    let _ = fs::remove_dir_all(&fresh);
    let mut initdb = account.command(&binaries.program("initdb"));
    initdb.current_dir(root).args(["--username=postgres", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]);
    initdb.args(["--data-checksums", "--no-sync", "--pwfile"]).arg(root.join("superuser-password"));
    let output = initdb.arg("-D").arg(&fresh).output().map_err(while_trying("cannot run initdb"))?;
    if !output.status.success() {
        return Err(PostgresError::Initdb(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    fs::rename(&fresh, data).map_err(while_trying("cannot rename the new data folder"))
}

/// A server whose supervisor was killed too. We hold the lock, so nobody is using it.
///
/// The file can be older than the last boot and its process id somebody else's by now: only a
/// process that was started with this very folder is stopped.
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
    // It fails if the file is all that is left, which the next start deals with by itself.
    let _ = pg_ctl.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn spawn(
    data: &Path,
    log: &Path,
    port: u16,
    binaries: &Binaries,
    account: Account,
    durability: Durability,
) -> Result<Child, PostgresError> {
    let open = || OpenOptions::new().create(true).append(true).open(log);
    let (out, err) = (open(), open());
    let (out, err) = (out.map_err(while_trying("cannot log"))?, err.map_err(while_trying("cannot log"))?);
    let mut command = account.command(Path::new("/bin/sh"));
    // A process group of its own: Ctrl-C reaches this program only, which then stops the server in order.
    command.current_dir("/").args(["-c", SUPERVISOR, "supervisor"]).process_group(0);
    command.arg(if durability == Durability::Disposable { data } else { Path::new("") });
    command.arg(binaries.program("postgres")).arg("-D").arg(data);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", "", "-c", "max_connections=300"]);
    if durability == Durability::Disposable {
        command.args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]);
        // Its workers visit each database in turn, and hundreds of short-lived ones keep them busy.
        command.args(["-c", "autovacuum=off"]);
    }
    command.stdin(Stdio::piped()).stdout(out).stderr(err);
    command.spawn().map_err(while_trying("cannot start PostgreSQL"))
}

fn free_port() -> Result<u16, PostgresError> {
    let probe = || TcpListener::bind("127.0.0.1:0")?.local_addr();
    Ok(probe().map_err(while_trying("no free port"))?.port())
}
