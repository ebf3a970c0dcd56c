//! Backups that nobody can read who has no key for them (CRYPTO-09). `pg_dump` and `pg_restore` do the work, and what goes
//! between them and the file passes through age. There is no way to write one plain.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, IsTerminal as _, Read, Seek as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use url::Url;

use crate::{
    crypto::{Digested, EnvelopeError, Identity, Recipient},
    settings::{LoginSettings, decoded, readable_by_all},
    telemetry::event,
};

/// Standard input or output, as a file's name.
const STANDARD: &str = "-";
/// Where the programs are looked for after `APP_PG_BIN` and `PATH`, which Debian leaves them out of.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Write everything that is in the database to an encrypted file, as the login of `APP_DATABASE__BACKUP_URL`.
#[derive(Args, Clone, Debug)]
pub struct Backup {
    /// Who can read it: a recipient of age, `age1…`; may be repeated
    #[arg(long = "to", required = true)]
    to: Vec<Recipient>,
    /// The file, which must not be there yet; `-` is standard output
    file: PathBuf,
}

/// Put a backup into an empty database, as the login of `APP_DATABASE__OWNER_URL`. All of it or nothing.
#[derive(Args, Clone, Debug)]
pub struct Restore {
    /// A file with the key of somebody whom it was written to, as `age-keygen` makes it
    #[arg(long)]
    identity: PathBuf,
    /// The SHA-256 of the backup, as `backup` said it: whoever has the recipient can write a backup, and this tells yours.
    /// Takes a copy into the folder of temporary files (`TMPDIR`)
    #[arg(long, value_parser = sha256)]
    sha256: Option<String>,
    /// The backup; `-` is standard input
    file: PathBuf,
}

fn sha256(text: &str) -> Result<String, &'static str> {
    let is_digest = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_digest { Ok(text.to_ascii_lowercase()) } else { Err("expected 64 hexadecimal digits") }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its size before encryption.
    pub bytes: u64,
    /// Of the file.
    pub sha256: String,
}

/// Why there is no backup, or nothing was restored.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A program of PostgreSQL is missing.
    #[error("{0} is not there: install PostgreSQL's client, or name its folder in APP_PG_BIN")]
    Program(&'static str),
    /// A program of PostgreSQL failed, and said why.
    #[error("{0} failed ({1})")]
    Failed(&'static str, ExitStatus),
    /// A file cannot be used.
    #[error("{}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// It would be overwritten.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// It is complete, and something else has its name.
    #[error("the backup is complete, and is {}: it cannot get its name", .0.display())]
    Unnamed(PathBuf),
    /// Others could read the key.
    #[error("{0}")]
    Open(String),
    /// It is not the one that was asked for.
    #[error("{file} is another backup: its SHA-256 is {sha256}; nothing was restored")]
    Another {
        /// The file.
        file: String,
        /// Of the file.
        sha256: String,
    },
    /// It cannot be read, or there is no room for a copy.
    #[error("the backup cannot be read, or not copied into {} to be digested before it is restored", std::env::temp_dir().display())]
    Copy(#[source] io::Error),
    /// Bytes are for a file or for another program.
    #[error("a backup is not shown on a terminal")]
    Terminal,
    /// Encryption or decryption failed.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// What is written or read breaks off.
    #[error("the backup breaks off")]
    Io(#[from] io::Error),
    /// The URL of the login cannot be used.
    #[error("the database's URL cannot be used")]
    Url,
}

impl Backup {
    /// Writes it.
    pub fn write(&self, login: &LoginSettings) -> Result<Written, BackupError> {
        let written = if self.file.as_os_str() == STANDARD {
            if io::stdout().is_terminal() {
                return Err(BackupError::Terminal);
            }
            self.dump(login, io::stdout().lock()).map(|(written, _)| written)?
        } else {
            self.write_file(login)?
        };
        event::backed_up(&self.file.display().to_string(), written.bytes, &written.sha256, self.to.len());
        Ok(written)
    }

    /// A backup that is not finished has another name.
    fn write_file(&self, login: &LoginSettings) -> Result<Written, BackupError> {
        if self.file.symlink_metadata().is_ok() {
            return Err(BackupError::Exists(self.file.clone()));
        }
        let mut partial = self.file.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let failed = |error| BackupError::File(partial.clone(), error);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).map_err(failed)?;
        let written = self.dump(login, BufWriter::new(file)).and_then(|(written, output)| {
            output.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            Ok(written)
        });
        // Fails if somebody else made one meanwhile, where renaming would overwrite it.
        if written.is_ok() && fs::hard_link(&partial, &self.file).is_err() {
            return Err(BackupError::Unnamed(partial));
        }
        fs::remove_file(&partial).map_err(failed)?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())?;
        written
    }

    fn dump<W: Write>(&self, login: &LoginSettings, output: W) -> Result<(Written, W), BackupError> {
        const PROGRAM: &str = "pg_dump";
        let mut command = client(PROGRAM, &login.url)?;
        let mut dump = command.arg("--format=custom").stdout(Stdio::piped()).spawn()?;
        let stdout = dump.stdout.take();
        let copied = || -> Result<_, BackupError> {
            let mut from = stdout.ok_or(BackupError::Program(PROGRAM))?;
            let mut envelope = Recipient::encrypt_to(&self.to, Digested::new(output))?;
            Ok((io::copy(&mut from, &mut envelope)?, envelope))
        };
        let (bytes, envelope) = ended(copied(), PROGRAM, &mut dump)?;
        // Only now: what is not finished does not decrypt.
        let (mut output, sha256) = envelope.finish()?.finish();
        output.flush()?;
        Ok((Written { bytes, sha256 }, output))
    }
}

impl Restore {
    /// Restores it, in one transaction.
    pub fn run(&self, login: &LoginSettings) -> Result<(), BackupError> {
        const PROGRAM: &str = "pg_restore";
        if let Some(fault) = readable_by_all(&self.identity) {
            return Err(BackupError::Open(fault));
        }
        let failed = |error| BackupError::File(self.identity.clone(), error);
        let identity = fs::read_to_string(&self.identity).map_err(failed).map(SecretString::from)?;
        let identity = Identity::from_text(&identity)?;
        event::secret_read("restore", "--identity", &format!("file {}", self.identity.display()));
        let mut plain = identity.decrypt(self.open()?)?;
        let mut command = client(PROGRAM, &login.url)?;
        command.args(["--single-transaction", "--exit-on-error", "--no-owner"]).stdin(Stdio::piped());
        let mut restore = command.spawn()?;
        let stdin = restore.stdin.take();
        let copied = || -> Result<_, BackupError> {
            let mut to = stdin.ok_or(BackupError::Program(PROGRAM))?;
            Ok(io::copy(&mut plain, &mut to)?)
        };
        let bytes = ended(copied(), PROGRAM, &mut restore)?;
        event::restored(&self.file.display().to_string(), bytes);
        Ok(())
    }
}

impl Restore {
    /// The backup, if it is the one that was asked for. Of that a copy which has no name: nobody changes it any more.
    fn open(&self) -> Result<Box<dyn Read>, BackupError> {
        let failed = |error| BackupError::File(self.file.clone(), error);
        let (name, mut input): (_, Box<dyn Read>) = if self.file.as_os_str() == STANDARD {
            ("what comes by standard input".to_owned(), Box::new(io::stdin().lock()))
        } else {
            (self.file.display().to_string(), Box::new(File::open(&self.file).map_err(failed)?))
        };
        let Some(wanted) = &self.sha256 else { return Ok(input) };
        let mut copy = Digested::new(tempfile::tempfile().map_err(BackupError::Copy)?);
        io::copy(&mut input, &mut copy).map_err(BackupError::Copy)?;
        let (mut copy, sha256) = copy.finish();
        copy.rewind().map_err(BackupError::Copy)?;
        if sha256 == *wanted { Ok(Box::new(copy)) } else { Err(BackupError::Another { file: name, sha256 }) }
    }
}

/// What was copied, once the program has ended well. If copying failed, the program is stopped; if it failed because the
/// program had ended, what that says counts.
fn ended<T>(copied: Result<T, BackupError>, name: &'static str, program: &mut Child) -> Result<T, BackupError> {
    let gone = matches!(&copied, Err(BackupError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe);
    if copied.is_err() && !gone {
        program.kill()?;
    }
    let status = program.wait()?;
    match copied {
        Ok(copied) if status.success() => Ok(copied),
        Err(error) if !gone || status.success() => Err(error),
        _ => Err(BackupError::Failed(name, status)),
    }
}

/// A program of PostgreSQL's client for a database. The password is where no list of processes shows it; no other secret
/// of the environment is any of its business, and what that says of databases does not count.
fn client(program: &'static str, url: &SecretString) -> Result<Command, BackupError> {
    let mut url = Url::parse(url.expose_secret()).map_err(|_| BackupError::Url)?;
    let password = decoded(url.password().unwrap_or_default());
    url.set_password(None).map_err(|()| BackupError::Url)?;
    let mut command = Command::new(find(program).ok_or(BackupError::Program(program))?);
    command.arg("--no-password").arg("--dbname").arg(url.as_str());
    command.env_clear().env("PGPASSWORD", password.expose_secret());
    // Where the authorities of certificates are, and temporary files.
    let kept = ["PATH", "HOME", "TMPDIR", "LANG"].into_iter();
    command.envs(kept.filter_map(|name| Some((name, std::env::var_os(name)?))));
    Ok(command)
}

/// In the folder of `APP_PG_BIN`; else on `PATH`; else the newest of Debian's.
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
