use std::{
    fs::{self, OpenOptions},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use secrecy::ExposeSecret as _;
use service::dev::{
    database::{Cluster, Urls},
    demo,
    postgres::{Binaries, Data, Durability, Server},
};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::eventually;

/// Runs the server as it was started the last time, on the same port too, until its own standard input ends: however
/// this process does.
const SUPERVISOR: &str = r#"
eval "$(cat "$1/postmaster.opts") &"
server=$!
read -r _
kill -INT "$server"
wait "$server"
"#;

/// A PostgreSQL server of a test's own, which it may crash and start again. It is a process of this machine also where
/// the others' databases are in a container, and keeps what it has committed, which those need not.
pub struct OwnPostgres {
    pub database: Urls,
    cluster: Cluster,
    /// Asked for; it may have been made elsewhere.
    folder: PathBuf,
    data: PathBuf,
    running: Option<Child>,
}

impl OwnPostgres {
    /// With the schema and the demo data.
    pub async fn start() -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let binaries = Binaries::find_or_fetch(&target.join("postgres-binaries"), |_| {}).await.unwrap();
        let folder = target.join(format!("own-postgres-{}", Uuid::now_v7()));
        let server = Server::start(&folder, &binaries, Durability::Durable, Data::Kept).await.unwrap();
        let cluster = Cluster::new(server.url()).unwrap();
        let database = cluster.provision("own").await.unwrap();
        let mut owner = PgConnection::connect(database.owner.expose_secret()).await.unwrap();
        demo::seed(&mut owner, &database).await.unwrap();
        owner.close().await.unwrap();
        let mut admin = cluster.connect().await.unwrap();
        let place = "select current_setting('data_directory')";
        let data: String = sqlx::query_scalar(place).fetch_one(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        // It took a free port, and would take another one: from here on it is started as it was.
        server.stop().await;
        let mut own = Self { database, cluster, folder, data: data.into(), running: None };
        own.revive().await;
        own
    }

    /// Without a word to anybody, and with nothing written that was not: as an immediate shutdown is, after which it
    /// recovers by its log.
    pub async fn crash(&mut self) {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap();
        let pid = file.lines().next().unwrap();
        assert!(Command::new("kill").args(["-QUIT", pid]).status().unwrap().success());
        let data = &self.data;
        eventually("PostgreSQL is gone", async || !data.join("postmaster.pid").exists()).await;
        end(self.running.take());
        assert!(self.cluster.connect().await.is_err(), "it answers all the same");
    }

    /// On the same port, with the same data.
    pub async fn revive(&mut self) {
        let (root, owner) = (self.data.parent().unwrap(), fs::metadata(&self.data).unwrap());
        let log = OpenOptions::new().create(true).append(true).open(root.join("postgres.log")).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SUPERVISOR, "supervisor"]).arg(&self.data).current_dir("/").process_group(0);
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        // The lock is this process's own; the data is somebody's without rights if this process is root.
        if fs::metadata(root.join("lock")).unwrap().uid() != owner.uid() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        self.running = Some(command.spawn().unwrap());
        let cluster = &self.cluster;
        eventually("PostgreSQL answers", async || cluster.connect().await.is_ok()).await;
    }
}

/// Lets the supervisor end, and waits for it.
fn end(running: Option<Child>) {
    if let Some(mut child) = running {
        drop(child.stdin.take());
        let _ = child.wait();
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        end(self.running.take());
        for folder in self.data.parent().into_iter().chain([self.folder.as_path()]) {
            let _ = fs::remove_dir_all(folder);
        }
    }
}
