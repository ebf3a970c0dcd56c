//! A PostgreSQL server for a single test ([`RestartablePostgres`]), which it may crash and restart.
//!
//! It is a process of this machine even if the other tests' server runs in a container, and it is
//! durable: committed data survives a crash. It can require TLS. `drills/outages.rs` and
//! [`Production`](crate::Production) use it.

use std::{
    fs::{self, OpenOptions, Permissions},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use palisade::dev::{
    database::{Cluster, Urls},
    postgres::{Binaries, Data, Server},
};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::{TestService, eventually, eventually_recovered, scratch_folder};

/// Runs the server with the options of its last start, the port included, until standard input
/// closes: so the server ends when this process ends in any way.
const SUPERVISOR: &str = r#"
eval "$(cat "$1/postmaster.opts") &"
server=$!
read -r _
kill -INT "$server"
wait "$server"
"#;

/// The server and its one database.
pub struct RestartablePostgres {
    /// Connection URLs of the database.
    pub database: Urls,
    cluster: Cluster,
    /// The requested folder; the server may have created its data elsewhere.
    folder: PathBuf,
    data: PathBuf,
    running: Option<Child>,
}

impl RestartablePostgres {
    /// Starts a server with the schema and the demo data.
    pub async fn start(service: &TestService) -> Self {
        let target = scratch_folder();
        let binaries = Binaries::find_or_fetch(&target.join("postgres-binaries"), |_| {}).await.unwrap();
        let folder = target.join(format!("own-postgres-{}", Uuid::now_v7()));
        let server = Server::start(&folder, &binaries, Data::Kept).await.unwrap();
        let cluster = Cluster::new(server.url()).unwrap();
        let database = cluster.provision("own").await.unwrap();
        service.seed(&database).await;
        let mut admin = cluster.connect().await.unwrap();
        let data_directory = "select current_setting('data_directory')";
        let data: String = sqlx::query_scalar(data_directory).fetch_one(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        // `Server` would take another free port; from here on the supervisor restarts it on this
        // one.
        server.stop().await;
        let mut postgres = Self { database, cluster, folder, data: data.into(), running: None };
        postgres.restart().await;
        postgres
    }

    /// Switches TLS on, with this certificate and key (PEM), and refuses connections without it.
    /// The URLs then verify the server with the authorities of this file.
    pub async fn require_tls(&mut self, (certificate, key): (String, String), authorities: &Path) {
        let owner = fs::metadata(&self.data).unwrap();
        let rules = "hostssl all all 127.0.0.1/32 scram-sha-256\n".to_owned();
        for (name, text) in [("server.crt", certificate), ("server.key", key), ("pg_hba.conf", rules)] {
            let file = self.data.join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let mut admin = self.cluster.connect().await.unwrap();
        for sql in ["alter system set ssl = on", "select pg_reload_conf()"] {
            sqlx::raw_sql(sql).execute(&mut admin).await.unwrap();
        }
        let plain = SecretString::from(format!("{}?sslmode=disable", self.database.owner.expose_secret()));
        let refuses_plain = async || PgConnection::connect(plain.expose_secret()).await.is_err();
        eventually("PostgreSQL refuses connections without TLS", refuses_plain).await;
        let query = format!("sslmode=verify-full&sslrootcert={}", authorities.display());
        let verified = |url: &SecretString| SecretString::from(format!("{}?{query}", url.expose_secret()));
        self.database = Urls {
            owner: verified(&self.database.owner),
            writer: verified(&self.database.writer),
            reader: verified(&self.database.reader),
            authn: verified(&self.database.authn),
            keys: verified(&self.database.keys),
            ..self.database.clone()
        };
    }

    /// Stops the server with an immediate shutdown (SIGQUIT): it closes all connections without
    /// flushing anything, and recovers from its write-ahead log at the next start.
    pub async fn crash(&mut self) {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap();
        let pid = file.lines().next().unwrap();
        assert!(Command::new("kill").args(["-QUIT", pid]).status().unwrap().success());
        let data = &self.data;
        eventually("PostgreSQL is gone", async || !data.join("postmaster.pid").exists()).await;
        stop(self.running.take());
        assert!(self.cluster.connect().await.is_err(), "the server still responds");
    }

    /// Starts the server again, on the same port and with the same data.
    pub async fn restart(&mut self) {
        let root = self.data.parent().unwrap();
        let owner = fs::metadata(&self.data).unwrap();
        let log = OpenOptions::new().create(true).append(true).open(root.join("postgres.log")).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SUPERVISOR, "supervisor"]).arg(&self.data).current_dir("/").process_group(0);
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        // If this process is root, the data belongs to an unprivileged user: PostgreSQL refuses
        // root.
        if fs::metadata(root.join("lock")).unwrap().uid() != owner.uid() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        self.running = Some(command.spawn().unwrap());
        let cluster = &self.cluster;
        eventually_recovered("PostgreSQL responds", async || cluster.connect().await.is_ok()).await;
    }
}

/// Closes the supervisor's standard input and waits until it has ended.
fn stop(running: Option<Child>) {
    if let Some(mut child) = running {
        drop(child.stdin.take());
        let _ = child.wait();
    }
}

impl Drop for RestartablePostgres {
    fn drop(&mut self) {
        stop(self.running.take());
        for folder in self.data.parent().into_iter().chain([self.folder.as_path()]) {
            let _ = fs::remove_dir_all(folder);
        }
    }
}
