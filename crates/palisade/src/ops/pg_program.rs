//! The programs of PostgreSQL that `backup` and `restore` run: where they are, which environment
//! they get, and how they end.

use std::{
    fs, io,
    path::PathBuf,
    process::{Child, Command},
};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::BackupError;
use crate::settings::percent_decoded;

/// Where Debian installs the programs of each PostgreSQL version, outside `PATH`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Command for a PostgreSQL program. It gets a few harmless variables of this process: no secrets,
/// and no `PG…` variables that would change a connection.
pub(super) fn command(program: &'static str) -> Result<Command, BackupError> {
    let mut command = Command::new(find(program).ok_or(BackupError::Program(program))?);
    // `HOME` for CA certificates below it, `TMPDIR` for temporary files.
    let kept = ["PATH", "HOME", "TMPDIR", "LANG"].into_iter();
    command.env_clear().envs(kept.filter_map(|name| Some((name, std::env::var_os(name)?))));
    Ok(command)
}

/// Command for a PostgreSQL program that connects to `url`. The password goes into the environment,
/// because other users can read arguments.
pub(super) fn connecting_command(program: &'static str, url: &SecretString) -> Result<Command, BackupError> {
    let mut url = Url::parse(url.expose_secret()).map_err(|_| BackupError::Url)?;
    let password = percent_decoded(url.password().unwrap_or_default());
    url.set_password(None).map_err(|()| BackupError::Url)?;
    let mut command = command(program)?;
    command.arg("--no-password").arg("--dbname").arg(url.as_str()).env("PGPASSWORD", password.expose_secret());
    Ok(command)
}

/// Waits for a program after its data was copied, and returns the result of the copy. If copying
/// failed, the program is killed. If it failed because the program ended, its exit status is the
/// error.
pub(super) fn finish<T>(
    copied: Result<T, BackupError>,
    name: &'static str,
    program: &mut Child,
) -> Result<T, BackupError> {
    let program_ended = matches!(&copied, Err(BackupError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe);
    if copied.is_err() && !program_ended {
        program.kill()?;
    }
    let status = program.wait()?;
    match copied {
        Ok(copied) if status.success() => Ok(copied),
        Err(error) if !program_ended || status.success() => Err(error),
        _ => Err(BackupError::Failed(name, status)),
    }
}

/// Looks in `APP_PG_BIN` if set, otherwise in `PATH`, otherwise in the newest Debian directory.
fn find(program: &str) -> Option<PathBuf> {
    let in_folder = |folder: PathBuf| Some(folder.join(program)).filter(|path| path.is_file());
    if let Some(folder) = std::env::var_os("APP_PG_BIN") {
        return in_folder(folder.into());
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).find_map(in_folder);
    on_path.or_else(|| {
        let versions = fs::read_dir(DEBIAN).ok()?.flatten();
        let version = |entry: &fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let mut versions: Vec<_> =
            versions.filter_map(|entry| Some((version(&entry)?, entry.path().join("bin")))).collect();
        versions.sort_unstable();
        versions.into_iter().rev().find_map(|(_, folder)| in_folder(folder))
    })
}
