//! `PgBouncer` in transaction mode before the database of a test ([`PgBouncer`]).
//!
//! The program is the one at `TEST_PGBOUNCER`, else `pgbouncer` of the search path. Without it its
//! tests are skipped, as with `TEST_PGBOUNCER=off`; they fail with `required`, or if `CI` is set.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use palisade::dev::database::Urls;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgConnection};
use url::Url;

use crate::{eventually, free_address, optional_tool::OptionalTool};

const TOOL: OptionalTool =
    OptionalTool { topic: "pooler", variable: "TEST_PGBOUNCER", tests: "the tests with PgBouncer" };
/// A user without rights, since the pooler refuses root.
const UNPRIVILEGED: u32 = 65_534;

/// A running pooler with two connections to the server for each login; killed on drop.
pub struct PgBouncer {
    port: u16,
    folder: PathBuf,
    child: Child,
}

/// The program, and its version: 1 and the second number.
fn program() -> Option<&'static (String, u32)> {
    static PROGRAM: OnceLock<Result<(String, u32), String>> = OnceLock::new();
    TOOL.get(PROGRAM.get_or_init(|| {
        TOOL.find(|| {
            let set = TOOL.setting().filter(|setting| setting.contains('/'));
            let program = set.unwrap_or_else(|| "pgbouncer".to_owned());
            let output = Command::new(&program).arg("--version").output().map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let version = text.strip_prefix("PgBouncer 1.").and_then(|rest| rest.split('.').next()?.parse().ok());
            let version = version.ok_or_else(|| format!("{program} --version: {text}"))?;
            let consequence =
                if version < 21 { ", too old for the tests of transaction mode, which are SKIPPED" } else { "" };
            Ok((format!("PgBouncer 1.{version}{consequence}"), (program, version)))
        })
    }))
}

impl PgBouncer {
    /// Whether the program can prepare statements in transaction mode; `None` without a program.
    pub fn prepares_statements() -> Option<bool> {
        program().map(|(_, version)| *version >= 21)
    }

    /// Starts before the server of this database. With `prepares`, statements are prepared under
    /// names of the pooler.
    pub async fn start(database: &Urls, prepares: bool) -> Option<Self> {
        let (program, version) = program()?;
        let server = Url::parse(database.owner.expose_secret()).unwrap();
        let port = free_address().port();
        let folder = std::env::temp_dir().join(format!("pgbouncer-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&folder).unwrap();
        let logins = [&database.writer, &database.reader, &database.authn, &database.keys];
        let logins = logins.map(|url| Url::parse(url.expose_secret()).unwrap());
        let users = logins.map(|url| format!("\"{}\" \"{}\"\n", url.username(), url.password().unwrap()));
        let statements = if *version < 21 {
            String::new()
        } else {
            format!("max_prepared_statements = {}\n", if prepares { 200 } else { 0 })
        };
        let settings = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}/users\npool_mode = transaction\n\
             default_pool_size = 2\nignore_startup_parameters = extra_float_digits,options\n{statements}",
            server.host_str().unwrap(),
            server.port().unwrap_or(5432),
            folder.display()
        );
        let is_root = fs::metadata(&folder).unwrap().uid() == 0;
        for (name, text) in [("users", users.concat()), ("pgbouncer.ini", settings)] {
            fs::write(folder.join(name), text).unwrap();
            if is_root {
                chown(folder.join(name), Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
            }
        }
        let mut command = Command::new(program);
        command.arg(folder.join("pgbouncer.ini")).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        if is_root {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        let bouncer = Self { port, folder, child: command.spawn().unwrap() };
        let url = bouncer.url(&database.reader);
        let responds = async || match PgConnection::connect(url.expose_secret()).await {
            Ok(connection) => connection.close().await.is_ok(),
            Err(_) => false,
        };
        eventually("PgBouncer responds", responds).await;
        Some(bouncer)
    }

    /// The URL of a login through the pooler.
    pub fn url(&self, url: &SecretString) -> SecretString {
        let mut url = Url::parse(url.expose_secret()).unwrap();
        url.set_ip_host(std::net::Ipv4Addr::LOCALHOST.into()).unwrap();
        url.set_port(Some(self.port)).unwrap();
        SecretString::from(String::from(url))
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
