//! `audit verify`: checks that the audit trail is unchanged (LOG-05).
//!
//! Reads events, journal and seals of all tenants with the backup login, recomputes every digest in
//! Rust, and compares the seals with the `audit_sealed` lines of the log. Reports each difference
//! as a finding; docs/audit.md explains them.

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
    db::DbError,
    model::AuditEvent,
    settings::LoginSettings,
    store::maintenance::{AuditReader, JournaledEvent, StoredSeal},
    telemetry::event,
};

/// Size of a seal's entry for one journal line: its position and the first 8 bytes of its digest.
const ENTRY_LEN: usize = 16;

/// Verify that the audit trail is unchanged, with the login of `APP_DATABASE__BACKUP_URL`
#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// File with log lines of the service, from where logs are kept. Its `audit_sealed` events are
    /// compared with the database; without it, the owner of the database can have rewritten the
    /// trail
    #[arg(long, value_name = "FILE")]
    pub anchors: Option<PathBuf>,
}

/// Digests in the log, in hexadecimal, by the number of the seal.
type Anchors = BTreeMap<i64, BTreeSet<String>>;

/// One difference between the trail and what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// An event was changed.
    Changed { position: i64, tenant: Uuid, event: Uuid },
    /// An event was removed.
    Removed { position: i64, tenant: Uuid, event: Uuid },
    /// An event has no journal line: the service did not write it.
    Inserted { tenant: Uuid, event: Uuid },
    /// A journal line was changed, removed or added after it was sealed.
    Journal { seal: i64, position: i64, what: &'static str },
    /// A seal does not follow from the previous seal and the journal.
    Seal { number: i64 },
    /// A seal was removed.
    NoSeal { number: i64 },
    /// A seal differs from the log.
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
            Self::Seal { number } => write!(f, "seal {number} does not match the journal and the previous seal"),
            Self::NoSeal { number } => write!(f, "seal {number} was removed"),
            Self::Anchor { number, what } => write!(f, "seal {number} {what}"),
        }
    }
}

/// Errors of the verification.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The trail could not be read.
    #[error(transparent)]
    Store(#[from] DbError),
    /// The log file could not be read.
    #[error("cannot read {}", .0.display())]
    Anchors(PathBuf, #[source] io::Error),
    /// The log file contains no `audit_sealed` event.
    #[error("{} contains no `audit_sealed` event", .0.display())]
    NoAnchors(PathBuf),
    /// The trail was changed. Each finding was reported.
    #[error("the audit trail was changed: {0} findings")]
    Changed(usize),
}

impl Verify {
    /// Verifies the trail. Calls `report` with one line per finding, or with a summary. Uses 16
    /// bytes of memory for each sealed event.
    pub async fn run(&self, login: &LoginSettings, mut report: impl FnMut(String)) -> Result<(), AuditError> {
        let anchors = self.read_anchors()?;
        let mut verification = Verification::default();
        let mut inserted = Vec::new();
        let mut trail = AuditReader::connect(&login.url).await?;
        // Two closures borrow it. They never run at the same time, which the compiler cannot prove.
        let shared = std::cell::RefCell::new(&mut verification);
        trail
            .read(
                |seals| shared.borrow_mut().begin(seals),
                |line| shared.borrow_mut().line(&line),
                |tenant, event| inserted.push(Finding::Inserted { tenant, event }),
            )
            .await?;
        verification.end();
        verification.findings.append(&mut inserted);
        verification.compare(&anchors);
        let Verification { findings, events, sealed, seals, .. } = verification;
        for finding in &findings {
            report(finding.to_string());
        }
        if !findings.is_empty() {
            event::audit_trail_invalid(findings.len());
            return Err(AuditError::Changed(findings.len()));
        }
        report(format!("{events} events, {sealed} of them under {} seals: nothing was changed", seals.len()));
        if let Some(last) = seals.last() {
            report(format!("seal {}: {}", last.number, hex(&last.digest)));
        }
        Ok(())
    }

    /// Reads the `audit_sealed` events of the log file. Empty if no file was given.
    fn read_anchors(&self) -> Result<Anchors, AuditError> {
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

/// State of a verification: the findings, and the journal lines since the last complete seal.
#[derive(Default)]
struct Verification {
    findings: Vec<Finding>,
    events: u64,
    sealed: u64,
    seals: Vec<StoredSeal>,
    /// Index of the seal that covers the current line.
    current: usize,
    /// Input of that seal's digest so far.
    content: Vec<u8>,
    /// That seal's entries for its lines so far.
    entries: Vec<u8>,
}

impl Verification {
    /// Takes the stored seals. Reports missing numbers.
    fn begin(&mut self, seals: Vec<StoredSeal>) {
        let mut expected = 1;
        for seal in &seals {
            self.findings.extend((expected..seal.number).map(|number| Finding::NoSeal { number }));
            expected = seal.number + 1;
        }
        self.seals = seals;
    }

    /// Checks the next line of the journal and its event.
    fn line(&mut self, line: &JournaledEvent) {
        self.events += 1;
        while self.seals.get(self.current).is_some_and(|seal| seal.upto < line.position) {
            self.complete_seal();
        }
        let JournaledEvent { position, tenant, event, .. } = *line;
        match &line.current {
            None => self.findings.push(Finding::Removed { position, tenant, event }),
            Some(now) if digest(now) != line.digest.as_slice() => {
                self.findings.push(Finding::Changed { position, tenant, event });
            }
            Some(_) => {}
        }
        if self.seals.get(self.current).is_some() {
            self.sealed += 1;
            self.content.extend(position.to_be_bytes());
            self.content.extend(tenant.as_bytes().iter().chain(event.as_bytes()).chain(&line.digest));
            self.entries.extend(position.to_be_bytes());
            self.entries.extend(line.digest.iter().take(ENTRY_LEN - 8));
        }
    }

    /// Recomputes the current seal from the lines it covers, and goes on to the next one.
    fn complete_seal(&mut self) {
        let content = std::mem::take(&mut self.content);
        let entries = std::mem::take(&mut self.entries);
        let Some(seal) = self.seals.get(self.current) else { return };
        let previous = self.current.checked_sub(1).and_then(|previous| self.seals.get(previous));
        let mut text = previous.map_or_else(Vec::new, |previous| previous.digest.clone());
        text.extend(seal.number.to_be_bytes().into_iter().chain(seal.upto.to_be_bytes()).chain(content));
        let events = i64::try_from(entries.len() / ENTRY_LEN).unwrap_or(i64::MAX);
        if sha256(&text) != seal.digest.as_slice() || seal.lines != entries || seal.events != events {
            let lines = differences(seal, &entries);
            if lines.is_empty() {
                self.findings.push(Finding::Seal { number: seal.number });
            }
            self.findings.extend(lines);
        }
        self.current += 1;
    }

    /// Completes the remaining seals after the last line.
    fn end(&mut self) {
        while self.current < self.seals.len() {
            self.complete_seal();
        }
    }

    /// Compares the seals with the log.
    fn compare(&mut self, anchors: &Anchors) {
        for (number, digests) in anchors {
            let what = match self.seals.iter().find(|seal| seal.number == *number) {
                // The seal was removed, and the service sealed the changed trail again.
                _ if digests.len() > 1 => "has two digests in the log",
                None => "is in the log but not in the database",
                Some(seal) if !digests.contains(&hex(&seal.digest)) => "has another digest in the log",
                Some(_) => continue,
            };
            self.findings.push(Finding::Anchor { number: *number, what });
        }
        // A seal covers all previous ones, so only the last must be in the log. One may be on its
        // way.
        if let (Some((logged, _)), Some(last)) = (anchors.last_key_value(), self.seals.last())
            && *logged < last.number - 1
        {
            let what = "is the last one in the log, and the database has later seals";
            self.findings.push(Finding::Anchor { number: *logged, what });
        }
    }
}

/// Compares the entries of a seal with the journal lines that it covers now.
fn differences(seal: &StoredSeal, now: &[u8]) -> Vec<Finding> {
    let parse = |entries: &[u8]| -> BTreeMap<i64, Vec<u8>> {
        let entry = |entry: &[u8]| {
            let (position, digest) = entry.split_first_chunk::<8>()?;
            Some((i64::from_be_bytes(*position), digest.to_vec()))
        };
        entries.chunks(ENTRY_LEN).filter_map(entry).collect()
    };
    let sealed = parse(&seal.lines);
    let now = parse(now);
    let finding = |position, what| Finding::Journal { seal: seal.number, position, what };
    let removed_or_changed = sealed.iter().filter_map(|(position, digest)| match now.get(position) {
        None => Some(finding(*position, "was removed")),
        Some(now) if now != digest => Some(finding(*position, "was changed")),
        Some(_) => None,
    });
    let added = now.keys().filter(|position| !sealed.contains_key(position));
    removed_or_changed.chain(added.map(|position| finding(*position, "was added after sealing"))).collect()
}

/// Digest of an event, computed as `audit_digest` in `migrations/0010_audit.sql` does.
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
