//! `restore`: a backup and its files of keys, into an empty database, in one transaction
//! (CRYPTO-08, CRYPTO-09).
//!
//! `pg_restore` turns each decrypted file into SQL, which this process runs. Between the data and
//! the indexes it erases again what was erased or destroyed after the backup: every row whose key
//! is in none of the files of keys, or is missing in a newer one.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek as _},
    path::{Path, PathBuf},
    process::Stdio,
    thread,
};

use chrono::{DateTime, Utc};
use clap::Args;
use secrecy::SecretString;
use uuid::Uuid;

use super::{BackupError, backup::HEADER, pg_program};
use crate::{
    crypto::{Identities, Sha256Writer},
    settings::{LoginSettings, file_mode_fault},
    store::{
        RegisteredTable,
        maintenance::{ErasedAgain, RestoreTransaction},
    },
    telemetry::event,
};

/// Restore a backup into an empty database, with the login of `APP_DATABASE__OWNER_URL`, in one
/// transaction
#[derive(Args, Clone, Debug)]
pub struct Restore {
    /// File with the secret key of a recipient, as `age-keygen` writes it; once for the data, and
    /// once for the keys
    #[arg(long, required = true)]
    identity: Vec<PathBuf>,
    /// File of keys that `backup` wrote with the data, or later. If given several times, the oldest
    /// comes first. A row whose key is missing in one of them was erased, and is erased again
    #[arg(long, required = true)]
    keys: Vec<PathBuf>,
    /// File that lists what else was erased: lines of a tenant and the id of a row, or of a tenant
    /// with destroyed data keys
    #[arg(long)]
    erased: Option<PathBuf>,
    /// SHA-256 that `backup` printed, once for each file: first of the data, then of each file of
    /// `--keys` in its order. Any holder of the recipient can write a backup, and only this
    /// identifies yours. Needs space for a copy in the temporary directory (`TMPDIR`)
    #[arg(long, value_parser = sha256)]
    sha256: Vec<String>,
    /// The backup of the data; `-` for standard input
    file: PathBuf,
}

fn sha256(text: &str) -> Result<String, &'static str> {
    let is_digest = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_digest { Ok(text.to_ascii_lowercase()) } else { Err("expected 64 hexadecimal digits") }
}

impl Restore {
    /// Restores the backup.
    pub async fn run(&self, login: &LoginSettings, sealed: &[RegisteredTable]) -> Result<ErasedAgain, BackupError> {
        let identities = self.read_identities()?;
        let erased = self.erased.as_deref().map(read_erased).transpose()?.unwrap_or_default();
        if !self.sha256.is_empty() && self.sha256.len() != self.keys.len() + 1 {
            return Err(BackupError::Digests);
        }
        let mut digests = self.sha256.iter();
        let data = open(&self.file, digests.next())?;
        let keys = self.keys.iter().map(|path| open(path, digests.next())).collect::<Result<Vec<_>, _>>()?;
        let times = [&data].into_iter().chain(&keys).map(|file| Ok(decrypt(&identities, file)?.0));
        let times = times.collect::<Result<Vec<_>, BackupError>>()?;
        for (pair, path) in times.windows(2).zip(&self.keys) {
            if let [Some(before), Some(after)] = pair
                && after < before
            {
                return Err(BackupError::Order(path.clone()));
            }
        }
        let mut restore = RestoreTransaction::begin(&login.url).await?;
        run_script(&mut restore, &identities, &data, &["--section=pre-data", "--section=data"]).await?;
        for file in &keys {
            run_script(&mut restore, &identities, file, &["--data-only"]).await?;
            restore.add_keys().await?;
        }
        for (tenant, row) in erased {
            if !restore.add_erased(tenant, row).await? {
                let row = row.map(|row| format!(" {row}")).unwrap_or_default();
                eprintln!("--erased: nothing to erase for {tenant}{row}");
            }
        }
        let again = restore.erase(sealed).await?;
        if let [Some(backup), Some(first), ..] = *times
            && first > backup
        {
            restore.check_not_reencrypted(backup).await?;
        }
        run_script(&mut restore, &identities, &data, &["--section=post-data"]).await?;
        restore.commit().await?;
        let bytes = data.metadata()?.len();
        event::data_restored(&self.file.display().to_string(), bytes, again.rows, again.tenants);
        Ok(again)
    }

    fn read_identities(&self) -> Result<Identities, BackupError> {
        let mut texts = Vec::new();
        for path in &self.identity {
            if let Some(fault) = file_mode_fault(path) {
                return Err(BackupError::KeyFileReadable(fault));
            }
            let text = fs::read_to_string(path).map_err(|error| BackupError::File(path.clone(), error))?;
            texts.push(SecretString::from(text));
            event::secret_read("restore", "--identity", &format!("file {}", path.display()));
        }
        Ok(Identities::from_texts(&texts)?)
    }
}

/// Opens a file that can be read twice. With its SHA-256, returns an unnamed copy, which no other
/// process can change between the check and the restore.
fn open(path: &Path, expected: Option<&String>) -> Result<File, BackupError> {
    let failed = |error| BackupError::File(path.to_owned(), error);
    let is_standard = path.as_os_str() == super::backup::STANDARD;
    let name = if is_standard { "standard input".to_owned() } else { path.display().to_string() };
    let mut copy = Sha256Writer::new(tempfile::tempfile().map_err(BackupError::Copy)?);
    if is_standard {
        io::copy(&mut io::stdin().lock(), &mut copy).map_err(BackupError::Copy)?;
    } else {
        let mut file = File::open(path).map_err(failed)?;
        if expected.is_none() && file.metadata().map_err(failed)?.is_file() {
            return Ok(file);
        }
        io::copy(&mut file, &mut copy).map_err(BackupError::Copy)?;
    }
    let (copy, sha256) = copy.finish();
    match expected {
        Some(expected) if *expected != sha256 => Err(BackupError::WrongDigest { file: name, sha256 }),
        _ => Ok(copy),
    }
}

/// Parses the list of erased rows and destroyed tenants. Text after `#` is a comment.
fn read_erased(path: &Path) -> Result<Vec<(Uuid, Option<Uuid>)>, BackupError> {
    let text = fs::read_to_string(path).map_err(|error| BackupError::File(path.to_owned(), error))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|words| !words.is_empty());
    let parse = |words: Vec<&str>| match *words.as_slice() {
        [tenant] => Some((tenant.parse().ok()?, None)),
        [tenant, row] => Some((tenant.parse().ok()?, Some(row.parse().ok()?))),
        _ => None,
    };
    lines.map(|words| parse(words).ok_or(BackupError::ErasedList)).collect()
}

/// Decrypts a file. Returns the time of its snapshot, and the output of `pg_dump`. A file of an earlier
/// version has no time.
fn decrypt(
    identities: &Identities,
    file: &File,
) -> Result<(Option<DateTime<Utc>>, impl BufRead + Send + use<>), BackupError> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    let mut plain = BufReader::new(identities.decrypt(BufReader::new(file))?);
    if !plain.fill_buf()?.starts_with(HEADER.as_bytes()) {
        return Ok((None, plain));
    }
    let mut line = String::new();
    plain.read_line(&mut line)?;
    let micros = line.strip_prefix(HEADER).and_then(|micros| micros.trim_end().parse().ok());
    let time = micros.and_then(DateTime::from_timestamp_micros).ok_or(io::ErrorKind::InvalidData);
    Ok((Some(time.map_err(io::Error::from)?), plain))
}

/// Decrypts a file, lets `pg_restore` turn it into SQL, and runs that.
async fn run_script(
    restore: &mut RestoreTransaction,
    identities: &Identities,
    file: &File,
    arguments: &[&str],
) -> Result<(), BackupError> {
    const PROGRAM: &str = "pg_restore";
    let (_, mut plain) = decrypt(identities, file)?;
    let mut command = pg_program::command(PROGRAM)?;
    command.args(["--file=-", "--no-owner"]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut program = command.spawn()?;
    let (stdin, stdout) = (program.stdin.take(), program.stdout.take());
    let (mut stdin, stdout) = stdin.zip(stdout).ok_or(BackupError::Program(PROGRAM))?;
    // `pg_restore` stops reading when it has what it needs. The rest is read too: a damaged end must
    // be noticed.
    let feeder = thread::spawn(move || match io::copy(&mut plain, &mut stdin) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => io::copy(&mut plain, &mut io::sink()),
        copied => copied,
    });
    let ran = restore.run_script(BufReader::new(stdout)).await;
    if ran.is_err() {
        program.kill()?;
    }
    let copied = feeder.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    let status = program.wait()?;
    // A damaged file is the cause of what the others report.
    copied?;
    ran?;
    if status.success() { Ok(()) } else { Err(BackupError::Failed(PROGRAM, status)) }
}
