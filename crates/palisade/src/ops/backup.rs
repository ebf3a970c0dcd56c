//! `backup` and `restore`: encrypted backups of the whole database (CRYPTO-09).
//!
//! `pg_dump` and `pg_restore` do the work; their data passes through age encryption in this
//! process. There is no option for an unencrypted backup. `main` calls [`Backup::write`] and
//! [`Restore::run`], which block until the program ends.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, IsTerminal as _, Read, Seek as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use url::Url;

use crate::{
    crypto::{AgeError, Identity, Recipient, Sha256Writer},
    settings::{LoginSettings, file_mode_fault, percent_decoded},
    telemetry::event,
};

/// File name that stands for standard input or output.
const STANDARD: &str = "-";
/// Where Debian installs the programs of each PostgreSQL version, outside `PATH`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The commands of this module.
#[derive(Subcommand, Clone, Debug)]
pub enum BackupCommand {
    /// Write an encrypted backup, with the login of `APP_DATABASE__BACKUP_URL`
    Backup(Backup),
    /// Restore a backup into an empty database, with the login of `APP_DATABASE__OWNER_URL`, in one
    /// transaction
    Restore(Restore),
}

/// Write an encrypted backup of the database, with the login of `APP_DATABASE__BACKUP_URL`
#[derive(Args, Clone, Debug)]
pub struct Backup {
    /// A recipient of age (`age1…`) that can decrypt the backup; may be given several times
    #[arg(long = "to", required = true)]
    to: Vec<Recipient>,
    /// The file to create, which must not exist; `-` for standard output
    file: PathBuf,
}

/// Restore a backup into an empty database, with the login of `APP_DATABASE__OWNER_URL`, in one
/// transaction
#[derive(Args, Clone, Debug)]
pub struct Restore {
    /// File with the secret key of a recipient, as `age-keygen` writes it
    #[arg(long)]
    identity: PathBuf,
    /// SHA-256 that `backup` printed. Any holder of the recipient can write a backup, and only this
    /// identifies yours. Needs space for a copy in the temporary directory (`TMPDIR`)
    #[arg(long, value_parser = sha256)]
    sha256: Option<String>,
    /// The backup; `-` for standard input
    file: PathBuf,
}

fn sha256(text: &str) -> Result<String, &'static str> {
    let is_digest = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_digest { Ok(text.to_ascii_lowercase()) } else { Err("expected 64 hexadecimal digits") }
}

/// Size and digest of a backup.
#[derive(Clone, Debug)]
pub struct BackupSummary {
    /// Size before encryption.
    pub bytes: u64,
    /// SHA-256 of the encrypted file, in hexadecimal.
    pub sha256: String,
}

/// Errors of `backup` and `restore`.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A PostgreSQL program is not installed.
    #[error("{0} not found; install the PostgreSQL client, or set APP_PG_BIN to its directory")]
    Program(&'static str),
    /// A PostgreSQL program failed. It printed the reason.
    #[error("{0} failed ({1})")]
    Failed(&'static str, ExitStatus),
    /// A file cannot be read or written.
    #[error("cannot use the file {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// The backup would overwrite a file.
    #[error("{} already exists", .0.display())]
    Exists(PathBuf),
    /// The backup is complete under its temporary name, but its final name was taken meanwhile.
    #[error("backup written to {}, but could not be renamed", .0.display())]
    NotRenamed(PathBuf),
    /// Other users can read the file with the secret key.
    #[error("{0}")]
    KeyFileReadable(String),
    /// The SHA-256 differs from `--sha256`.
    #[error("{file} has another SHA-256: {sha256}; nothing was restored")]
    WrongDigest {
        /// The backup.
        file: String,
        /// Its actual SHA-256.
        sha256: String,
    },
    /// The backup could not be copied to check its SHA-256.
    #[error("could not copy the backup to {} to check its SHA-256", std::env::temp_dir().display())]
    Copy(#[source] io::Error),
    /// Standard output is a terminal.
    #[error("standard output is a terminal; redirect it, or name a file")]
    Terminal,
    /// Encryption or decryption failed.
    #[error(transparent)]
    Age(#[from] AgeError),
    /// Reading or writing stopped before the end of the backup.
    #[error("reading or writing the backup failed before its end")]
    Io(#[from] io::Error),
    /// The URL of the login cannot be parsed.
    #[error("the database URL cannot be parsed")]
    Url,
}

impl Backup {
    /// Writes the backup to the file or to standard output.
    pub fn write(&self, login: &LoginSettings) -> Result<BackupSummary, BackupError> {
        let summary = if self.file.as_os_str() == STANDARD {
            if io::stdout().is_terminal() {
                return Err(BackupError::Terminal);
            }
            self.dump(login, io::stdout().lock()).map(|(summary, _)| summary)?
        } else {
            self.write_file(login)?
        };
        event::data_backed_up(&self.file.display().to_string(), summary.bytes, &summary.sha256, self.to.len());
        Ok(summary)
    }

    /// Writes to `<file>.partial`, which gets its final name once the backup is complete.
    fn write_file(&self, login: &LoginSettings) -> Result<BackupSummary, BackupError> {
        if self.file.symlink_metadata().is_ok() {
            return Err(BackupError::Exists(self.file.clone()));
        }
        let mut partial = self.file.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let failed = |error| BackupError::File(partial.clone(), error);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).map_err(failed)?;
        let summary = self.dump(login, BufWriter::new(file)).and_then(|(summary, output)| {
            output.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            Ok(summary)
        });
        // A link instead of a rename: it fails if the file exists by now, and overwrites nothing.
        if summary.is_ok() && fs::hard_link(&partial, &self.file).is_err() {
            return Err(BackupError::NotRenamed(partial));
        }
        fs::remove_file(&partial).map_err(failed)?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())?;
        summary
    }

    /// Runs `pg_dump` and writes its encrypted output to `output`.
    fn dump<W: Write>(&self, login: &LoginSettings, output: W) -> Result<(BackupSummary, W), BackupError> {
        const PROGRAM: &str = "pg_dump";
        let mut command = postgres_command(PROGRAM, &login.url)?;
        let mut dump = command.arg("--format=custom").stdout(Stdio::piped()).spawn()?;
        let stdout = dump.stdout.take();
        let copied = || -> Result<_, BackupError> {
            let mut from = stdout.ok_or(BackupError::Program(PROGRAM))?;
            let mut envelope = Recipient::encrypt_to(&self.to, Sha256Writer::new(output))?;
            Ok((io::copy(&mut from, &mut envelope)?, envelope))
        };
        let (bytes, envelope) = finish_program(copied(), PROGRAM, &mut dump)?;
        // Only after `pg_dump` succeeded: an envelope that is not finished does not decrypt.
        let (mut output, sha256) = envelope.finish()?.finish();
        output.flush()?;
        Ok((BackupSummary { bytes, sha256 }, output))
    }
}

impl Restore {
    /// Restores the backup in one transaction.
    pub fn run(&self, login: &LoginSettings) -> Result<(), BackupError> {
        const PROGRAM: &str = "pg_restore";
        if let Some(fault) = file_mode_fault(&self.identity) {
            return Err(BackupError::KeyFileReadable(fault));
        }
        let failed = |error| BackupError::File(self.identity.clone(), error);
        let identity = fs::read_to_string(&self.identity).map_err(failed).map(SecretString::from)?;
        let identity = Identity::from_text(&identity)?;
        event::secret_read("restore", "--identity", &format!("file {}", self.identity.display()));
        let mut plain = identity.decrypt(self.open()?)?;
        let mut command = postgres_command(PROGRAM, &login.url)?;
        command.args(["--single-transaction", "--exit-on-error", "--no-owner"]).stdin(Stdio::piped());
        let mut restore = command.spawn()?;
        let stdin = restore.stdin.take();
        let copied = || -> Result<_, BackupError> {
            let mut to = stdin.ok_or(BackupError::Program(PROGRAM))?;
            Ok(io::copy(&mut plain, &mut to)?)
        };
        let bytes = finish_program(copied(), PROGRAM, &mut restore)?;
        event::data_restored(&self.file.display().to_string(), bytes);
        Ok(())
    }

    /// Opens the backup. With `--sha256`, returns an unnamed copy, which no other process can
    /// change between the check and the restore.
    fn open(&self) -> Result<Box<dyn Read>, BackupError> {
        let failed = |error| BackupError::File(self.file.clone(), error);
        let (name, mut input): (_, Box<dyn Read>) = if self.file.as_os_str() == STANDARD {
            ("standard input".to_owned(), Box::new(io::stdin().lock()))
        } else {
            (self.file.display().to_string(), Box::new(File::open(&self.file).map_err(failed)?))
        };
        let Some(wanted) = &self.sha256 else { return Ok(input) };
        let mut copy = Sha256Writer::new(tempfile::tempfile().map_err(BackupError::Copy)?);
        io::copy(&mut input, &mut copy).map_err(BackupError::Copy)?;
        let (mut copy, sha256) = copy.finish();
        copy.rewind().map_err(BackupError::Copy)?;
        if sha256 == *wanted { Ok(Box::new(copy)) } else { Err(BackupError::WrongDigest { file: name, sha256 }) }
    }
}

/// Waits for a program after its data was copied, and returns the result of the copy. If copying
/// failed, the program is killed. If it failed because the program ended, its exit status is the
/// error.
fn finish_program<T>(
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

/// Command for a PostgreSQL program that connects to `url`.
///
/// The password goes into the environment, because other users can read arguments. The program gets
/// no other variables of this process except a few harmless ones: no secrets, and no `PG…`
/// variables that would change the connection.
fn postgres_command(program: &'static str, url: &SecretString) -> Result<Command, BackupError> {
    let mut url = Url::parse(url.expose_secret()).map_err(|_| BackupError::Url)?;
    let password = percent_decoded(url.password().unwrap_or_default());
    url.set_password(None).map_err(|()| BackupError::Url)?;
    let mut command = Command::new(find_program(program).ok_or(BackupError::Program(program))?);
    command.arg("--no-password").arg("--dbname").arg(url.as_str());
    command.env_clear().env("PGPASSWORD", password.expose_secret());
    // For CA certificates below the home directory, and for temporary files.
    let kept = ["PATH", "HOME", "TMPDIR", "LANG"].into_iter();
    command.envs(kept.filter_map(|name| Some((name, std::env::var_os(name)?))));
    Ok(command)
}

/// Looks in `APP_PG_BIN` if set, otherwise in `PATH`, otherwise in the newest Debian directory.
fn find_program(program: &str) -> Option<PathBuf> {
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
