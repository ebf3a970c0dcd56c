//! `backup`: an encrypted backup of the database, in two files (CRYPTO-08, CRYPTO-09).
//!
//! One file has the data, without row keys and data keys. The other has these keys, for recipients
//! of its own, and is kept for a shorter time: without it, sealed fields do not decrypt. `pg_dump`
//! writes both from one snapshot; its output passes through age encryption in this process. There
//! is no option for an unencrypted backup. `main` calls [`Backup::write`].

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use clap::{Args, Subcommand};
use tempfile::{NamedTempFile, PersistError};
use thiserror::Error;

use super::{Restore, pg_program};
use crate::{
    crypto::{AgeError, Recipient, Sha256Writer},
    settings::LoginSettings,
    store::maintenance::{RestoreError, Snapshot},
    telemetry::event,
};

/// File name that stands for standard input or output.
pub(super) const STANDARD: &str = "-";
/// Precedes the output of `pg_dump` in each file, with the time of the snapshot in microseconds and a
/// line feed.
pub(super) const HEADER: &str = "palisade-backup ";
/// The tables whose rows are in the file of keys, and only there.
const KEY_TABLES: [&str; 2] = ["palisade.row_keys", "palisade.data_keys"];

/// The commands of this module.
#[derive(Subcommand, Clone, Debug)]
pub enum BackupCommand {
    /// Write an encrypted backup, with the login of `APP_DATABASE__BACKUP_URL`
    Backup(Backup),
    /// Write the keys of sealed fields only, as `backup` does
    BackupKeys(BackupKeys),
    /// Restore a backup into an empty database, with the login of `APP_DATABASE__OWNER_URL`, in one
    /// transaction
    Restore(Restore),
}

/// Write an encrypted backup of the database, with the login of `APP_DATABASE__BACKUP_URL`
#[derive(Args, Clone, Debug)]
pub struct Backup {
    /// A recipient of age (`age1…`) that can decrypt the data; may be given several times
    #[arg(long = "to", required = true)]
    to: Vec<Recipient>,
    /// A recipient that can decrypt the keys of sealed fields; may be given several times
    #[arg(long = "keys-to", required = true)]
    keys_to: Vec<Recipient>,
    /// The file to create for the keys of sealed fields. Keep it for a short time: erased fields
    /// decrypt with it
    #[arg(long)]
    keys: PathBuf,
    /// The file to create for everything else; `-` for standard output
    file: PathBuf,
}

/// Write the keys of sealed fields only, with the login of `APP_DATABASE__BACKUP_URL`. A restore
/// with a newer file of keys erases again what was erased since the backup
#[derive(Args, Clone, Debug)]
pub struct BackupKeys {
    /// A recipient of age (`age1…`) that can decrypt the keys; may be given several times
    #[arg(long = "to", required = true)]
    to: Vec<Recipient>,
    /// The file to create; `-` for standard output
    file: PathBuf,
}

/// Size and digest of a file of a backup.
#[derive(Clone, Debug)]
pub struct BackupSummary {
    /// The file.
    pub file: PathBuf,
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
    /// A file is older than the one before it.
    #[error("{} is older than the data or a file of --keys before it; nothing was restored", .0.display())]
    Order(PathBuf),
    /// `--sha256` is given for some of the files only.
    #[error("give --sha256 once for each file: first of the data, then of each file of --keys in its order")]
    Digests,
    /// The backup could not be copied to check its SHA-256.
    #[error("could not copy the backup to {} to check its SHA-256", std::env::temp_dir().display())]
    Copy(#[source] io::Error),
    /// Standard output is a terminal, or would get two files.
    #[error("standard output is a terminal, or would get two files; redirect it, or name a file")]
    Terminal,
    /// A line of the list of erased rows cannot be parsed.
    #[error("a line of --erased is neither a tenant, nor a tenant and the id of a row")]
    ErasedList,
    /// The database refused.
    #[error(transparent)]
    Database(#[from] RestoreError),
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

/// A file to create.
struct Output<'a> {
    path: &'a Path,
    to: &'a [Recipient],
    /// What `pg_dump` writes into it.
    arguments: Vec<String>,
}

/// A complete file without its final name, or standard output.
struct Written {
    file: Option<NamedTempFile>,
    summary: BackupSummary,
}

impl Backup {
    /// Writes both files.
    pub async fn write(&self, login: &LoginSettings) -> Result<Vec<BackupSummary>, BackupError> {
        let arguments = KEY_TABLES.map(|table| format!("--exclude-table-data={table}")).to_vec();
        let data = Output { path: &self.file, to: &self.to, arguments };
        write(login, &[Output::of_keys(&self.keys, &self.keys_to), data]).await
    }
}

impl BackupKeys {
    /// Writes the file of keys.
    pub async fn write(&self, login: &LoginSettings) -> Result<Vec<BackupSummary>, BackupError> {
        write(login, &[Output::of_keys(&self.file, &self.to)]).await
    }
}

/// Writes all files from one snapshot. They get their names when all of them are complete.
async fn write(login: &LoginSettings, outputs: &[Output<'_>]) -> Result<Vec<BackupSummary>, BackupError> {
    let standard = outputs.iter().filter(|output| output.is_standard()).count();
    if standard > 1 || standard == 1 && io::stdout().is_terminal() {
        return Err(BackupError::Terminal);
    }
    if let Some(taken) = outputs.iter().find(|output| output.path.symlink_metadata().is_ok()) {
        return Err(BackupError::Exists(taken.path.to_owned()));
    }
    let snapshot = Snapshot::take(&login.url).await?;
    let written = outputs.iter().map(|output| output.write(login, &snapshot));
    let written = written.collect::<Result<Vec<_>, _>>()?;
    outputs.iter().zip(written).map(|(output, written)| output.publish(written)).collect()
}

impl<'a> Output<'a> {
    fn of_keys(path: &'a Path, to: &'a [Recipient]) -> Self {
        let tables = KEY_TABLES.iter().map(|table| format!("--table={table}"));
        Self { path, to, arguments: std::iter::once("--data-only".to_owned()).chain(tables).collect() }
    }

    fn is_standard(&self) -> bool {
        self.path.as_os_str() == STANDARD
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn write(&self, login: &LoginSettings, snapshot: &Snapshot) -> Result<Written, BackupError> {
        if self.is_standard() {
            let (summary, _) = self.dump(login, snapshot, io::stdout().lock())?;
            return Ok(Written { file: None, summary });
        }
        // The mode is 0600, and a file that is dropped is deleted.
        let file = tempfile::Builder::new().prefix(".backup-").suffix(".partial").tempfile_in(self.folder());
        let file = file.map_err(|error| BackupError::File(self.path.to_owned(), error))?;
        let (summary, output) = self.dump(login, snapshot, BufWriter::new(file))?;
        let file = output.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        Ok(Written { file: Some(file), summary })
    }

    /// Runs `pg_dump` and writes its encrypted output to `output`.
    fn dump<W: Write>(
        &self,
        login: &LoginSettings,
        snapshot: &Snapshot,
        output: W,
    ) -> Result<(BackupSummary, W), BackupError> {
        const PROGRAM: &str = "pg_dump";
        let mut command = pg_program::connecting_command(PROGRAM, &login.url)?;
        command.arg("--format=custom").arg(format!("--snapshot={}", snapshot.name)).args(&self.arguments);
        let mut dump = command.stdout(Stdio::piped()).spawn()?;
        let stdout = dump.stdout.take();
        let copied = || -> Result<_, BackupError> {
            let mut from = stdout.ok_or(BackupError::Program(PROGRAM))?;
            let mut envelope = Recipient::encrypt_to(self.to, Sha256Writer::new(output))?;
            writeln!(envelope, "{HEADER}{}", snapshot.at.timestamp_micros())?;
            Ok((io::copy(&mut from, &mut envelope)?, envelope))
        };
        let (bytes, envelope) = pg_program::finish(copied(), PROGRAM, &mut dump)?;
        // Only after `pg_dump` succeeded: an envelope that is not finished does not decrypt.
        let (mut output, sha256) = envelope.finish()?.finish();
        output.flush()?;
        Ok((BackupSummary { file: self.path.to_owned(), bytes, sha256 }, output))
    }

    /// Gives a complete file its name, unless that was taken meanwhile.
    fn publish(&self, Written { file, summary }: Written) -> Result<BackupSummary, BackupError> {
        if let Some(file) = file {
            let failed = |error: PersistError| BackupError::File(self.path.to_owned(), error.error);
            file.persist_noclobber(self.path).map_err(failed)?;
            File::open(self.folder()).and_then(|folder| folder.sync_all())?;
        }
        let name = self.path.display().to_string();
        event::data_backed_up(&name, summary.bytes, &summary.sha256, self.to.len());
        Ok(summary)
    }
}
