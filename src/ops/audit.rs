//! Verifies the audit trail (LOG-05): computes anew what the database says of itself, and compares it with what the log
//! was told of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    fs, io,
    path::PathBuf,
};

use clap::Args;
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::{
    crypto::{hex, sha256},
    domain::AuditEvent,
    settings::LoginSettings,
    store::{JournalLine, StoreError, StoredSeal, Trail},
    telemetry::event,
};

/// Bytes of a seal's note of a line: its position, and the beginning of its digest.
const NOTE: usize = 16;

/// Find out whether the audit trail is what was written, as the login of `APP_DATABASE__BACKUP_URL`.
#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// Log lines of the service, from where it sends them: each `audit_sealed` among them must be what the database says.
    /// Without it, somebody who owns the database can have written the whole trail anew
    #[arg(long, value_name = "FILE")]
    pub anchors: Option<PathBuf>,
}

/// The digests that the log was told, in hexadecimal digits, by the number of the seal.
type Anchors = BTreeMap<i64, BTreeSet<String>>;

/// What is wrong with the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// An event is not what was written.
    Changed { position: i64, tenant: Uuid, event: Uuid },
    /// An event is gone.
    Removed { position: i64, tenant: Uuid, event: Uuid },
    /// An event was never written by the service.
    Inserted { tenant: Uuid, event: Uuid },
    /// A line of the journal is not what was sealed, is gone, or was put there later.
    Journal { seal: i64, position: i64, what: &'static str },
    /// A seal does not follow from the one before and the journal.
    Seal { number: i64 },
    /// A seal is gone.
    NoSeal { number: i64 },
    /// A seal is not what the log was told.
    Anchor { number: i64, what: &'static str },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { position, tenant, event } => {
                write!(f, "event {event} of tenant {tenant} (position {position}) was changed")
            }
            Self::Removed { position, tenant, event } => {
                write!(f, "event {event} of tenant {tenant} (position {position}) was removed")
            }
            Self::Inserted { tenant, event } => write!(f, "event {event} of tenant {tenant} was inserted"),
            Self::Journal { seal, position, what } => write!(f, "line {position} of the journal (seal {seal}) {what}"),
            Self::Seal { number } => write!(f, "seal {number} does not fit the journal and the seal before"),
            Self::NoSeal { number } => write!(f, "seal {number} was removed"),
            Self::Anchor { number, what } => write!(f, "seal {number} {what}"),
        }
    }
}

/// Why the trail is not found to be whole.
#[derive(Debug, Error)]
pub enum AuditError {
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log lines could not be read.
    #[error("{}", .0.display())]
    Anchors(PathBuf, #[source] io::Error),
    /// There are no anchors in the file.
    #[error("{} has no line `audit_sealed`", .0.display())]
    NoAnchors(PathBuf),
    /// It was changed; what, was told.
    #[error("the audit trail was changed: {0} findings")]
    Changed(usize),
}

impl Verify {
    /// Verifies it, and says by `tell` what is found, a line at a time. Memory: 16 bytes for each event that is sealed.
    pub async fn run(&self, login: &LoginSettings, mut tell: impl FnMut(String)) -> Result<(), AuditError> {
        let anchors = self.anchors()?;
        let mut check = Check::default();
        let mut inserted = Vec::new();
        let mut trail = Trail::connect(&login.url).await?;
        // The closures take turns, which the compiler cannot know.
        let shared = std::cell::RefCell::new(&mut check);
        trail
            .read(
                |seals| shared.borrow_mut().begin(seals),
                |line| shared.borrow_mut().line(&line),
                |tenant, event| inserted.push(Finding::Inserted { tenant, event }),
            )
            .await?;
        check.end();
        check.findings.append(&mut inserted);
        check.compare(&anchors);
        let Check { findings, events, sealed, seals, .. } = check;
        for finding in &findings {
            tell(finding.to_string());
        }
        if !findings.is_empty() {
            event::audit_trail_invalid(findings.len());
            return Err(AuditError::Changed(findings.len()));
        }
        tell(format!("{events} events, {sealed} of them under {} seals: nothing was changed", seals.len()));
        if let Some(last) = seals.last() {
            tell(format!("seal {}: {}", last.number, hex(&last.digest)));
        }
        Ok(())
    }

    /// What the log was told: the digest of each seal, in hexadecimal digits.
    fn anchors(&self) -> Result<Anchors, AuditError> {
        let Some(path) = &self.anchors else { return Ok(Anchors::new()) };
        let lines = fs::read_to_string(path).map_err(|error| AuditError::Anchors(path.clone(), error))?;
        let anchor = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line.get("event")? == "audit_sealed" && line.get("target")? == "security")
                .then(|| Some((line.get("number")?.as_i64()?, line.get("digest")?.as_str()?.to_owned())))?
        };
        let mut anchors = Anchors::new();
        for (number, digest) in lines.lines().filter_map(anchor) {
            anchors.entry(number).or_default().insert(digest);
        }
        if anchors.is_empty() { Err(AuditError::NoAnchors(path.clone())) } else { Ok(anchors) }
    }
}

/// The trail as far as it was looked at.
#[derive(Default)]
struct Check {
    findings: Vec<Finding>,
    events: u64,
    sealed: u64,
    seals: Vec<StoredSeal>,
    /// Which seal is the next to be complete.
    at: usize,
    /// What that covers, as far as it was seen.
    content: Vec<u8>,
    notes: Vec<u8>,
}

impl Check {
    fn begin(&mut self, seals: Vec<StoredSeal>) {
        let mut expected = 1;
        for seal in &seals {
            self.findings.extend((expected..seal.number).map(|number| Finding::NoSeal { number }));
            expected = seal.number + 1;
        }
        self.seals = seals;
    }

    fn line(&mut self, line: &JournalLine) {
        self.events += 1;
        while self.seals.get(self.at).is_some_and(|seal| seal.upto < line.position) {
            self.close();
        }
        let JournalLine { position, tenant, event, .. } = *line;
        match &line.now {
            None => self.findings.push(Finding::Removed { position, tenant, event }),
            Some(now) if digest(now) != line.digest.as_slice() => {
                self.findings.push(Finding::Changed { position, tenant, event });
            }
            Some(_) => {}
        }
        if self.seals.get(self.at).is_some() {
            self.sealed += 1;
            self.content.extend(position.to_be_bytes());
            self.content.extend(tenant.as_bytes().iter().chain(event.as_bytes()).chain(&line.digest));
            self.notes.extend(position.to_be_bytes());
            self.notes.extend(line.digest.iter().take(NOTE - 8));
        }
    }

    /// All that the next seal covers was seen.
    fn close(&mut self) {
        let (content, notes) = (std::mem::take(&mut self.content), std::mem::take(&mut self.notes));
        let Some(seal) = self.seals.get(self.at) else { return };
        let before = self.at.checked_sub(1).and_then(|before| self.seals.get(before));
        let mut text = before.map_or_else(Vec::new, |before| before.digest.clone());
        text.extend(seal.number.to_be_bytes().into_iter().chain(seal.upto.to_be_bytes()).chain(content));
        let counted = i64::try_from(notes.len() / NOTE).unwrap_or(i64::MAX);
        if sha256(&text) != seal.digest.as_slice() || seal.lines != notes || seal.events != counted {
            let lines = differences(seal, &notes);
            if lines.is_empty() {
                self.findings.push(Finding::Seal { number: seal.number });
            }
            self.findings.extend(lines);
        }
        self.at += 1;
    }

    fn end(&mut self) {
        while self.at < self.seals.len() {
            self.close();
        }
    }

    /// Compares the seals with what the log was told.
    fn compare(&mut self, anchors: &Anchors) {
        for (number, told) in anchors {
            let what = match self.seals.iter().find(|seal| seal.number == *number) {
                // Made twice: what was sealed first was changed, and sealed anew by the service itself.
                _ if told.len() > 1 => "is in the log with two digests",
                None => "is in the log and not in the database",
                Some(seal) if !told.contains(&hex(&seal.digest)) => "is another in the log",
                Some(_) => continue,
            };
            self.findings.push(Finding::Anchor { number: *number, what });
        }
        // A seal vouches for all before it, so it is the last that counts; one may be on its way to the log.
        let (known, last) = (anchors.last_key_value(), self.seals.last());
        if let (Some((known, _)), Some(last)) = (known, last)
            && *known < last.number - 1
        {
            self.findings
                .push(Finding::Anchor { number: *known, what: "is the last that the log knows, and there are more" });
        }
    }
}

/// Which lines of the journal are not what a seal noted.
fn differences(seal: &StoredSeal, now: &[u8]) -> Vec<Finding> {
    let parse = |notes: &[u8]| -> BTreeMap<i64, Vec<u8>> {
        let note = |note: &[u8]| {
            let (position, digest) = note.split_first_chunk::<8>()?;
            Some((i64::from_be_bytes(*position), digest.to_vec()))
        };
        notes.chunks(NOTE).filter_map(note).collect()
    };
    let (then, now) = (parse(&seal.lines), parse(now));
    let finding = |position, what| Finding::Journal { seal: seal.number, position, what };
    let gone_or_changed = then.iter().filter_map(|(position, digest)| match now.get(position) {
        None => Some(finding(*position, "is gone")),
        Some(now) if now != digest => Some(finding(*position, "is another")),
        Some(_) => None,
    });
    let new = now.keys().filter(|position| !then.contains_key(position)).map(|p| finding(*p, "was put there later"));
    gone_or_changed.chain(new).collect()
}

/// As `audit_digest` of `migrations/0010_audit.sql` has it.
fn digest(event: &AuditEvent) -> [u8; 32] {
    let fields = [
        &event.tenant.to_string(),
        &event.id.to_string(),
        &event.at.timestamp_micros().to_string(),
        &event.subject,
        &event.client,
        &event.action,
        &event.object,
        &event.trace_id,
        &event.reason,
    ];
    let text = fields.into_iter().fold(String::new(), |mut text, field| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}:{field}", field.len());
        text
    });
    sha256(text.as_bytes())
}
