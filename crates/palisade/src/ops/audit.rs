//! `audit verify`: checks that the audit trail is unchanged (LOG-05).
//!
//! Reads events, journal and seals of all tenants with the backup login, recomputes every digest in
//! Rust, and compares the seals with the `audit_sealed` lines of the log. Reports each difference
//! as a finding; docs/audit.md explains them. Memory holds one stretch of the journal, and the seals
//! of the log from the first verified one on.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    io,
    path::PathBuf,
    str::FromStr,
};

use clap::Args;
use thiserror::Error;
use uuid::Uuid;

use super::audit_anchors::{Anchors, Declarations, SealDigest};
use crate::{
    crypto::{hex, sha256},
    db::DbError,
    model::AuditEvent,
    settings::LoginSettings,
    store::maintenance::{AuditReader, AuditSnapshot, JournaledEvent, StoredSeal},
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
    /// Verify only what follows this seal: the checkpoint that an earlier run printed
    #[arg(long, value_name = "NUMBER:DIGEST")]
    pub checkpoint: Option<Checkpoint>,
}

/// A seal up to which the trail was verified before.
#[derive(Clone, Debug)]
pub struct Checkpoint(SealDigest);

impl FromStr for Checkpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once(':').and_then(|(number, digest)| Some((number.parse().ok()?, digest.to_owned())));
        parsed.map(Self).ok_or("expected NUMBER:DIGEST, as `audit verify` prints it")
    }
}

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
    /// Seals were removed.
    NoSeal { first: i64, last: i64 },
    /// A seal differs from the log, or from a checkpoint.
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
            Self::NoSeal { first, last } if first == last => write!(f, "seal {first} was removed"),
            Self::NoSeal { first, last } => write!(f, "seals {first} to {last} were removed"),
            Self::Anchor { number, what } => write!(f, "seal {number} {what}"),
        }
    }
}

/// Errors of the commands.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The trail could not be read, or the database refused the command.
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
    /// The reason cannot be recorded, or the operator did not confirm.
    #[error("{0}")]
    Invalid(&'static str),
    /// A restore was declared, and the log has no seal that the database lacks.
    #[error("the database has every seal of the log that is not declared yet: there is nothing to declare")]
    NothingLost,
}

impl Verify {
    /// Verifies the trail. Calls `report` with one line per finding, or with a summary.
    pub async fn run(&self, login: &LoginSettings, mut report: impl FnMut(String)) -> Result<(), AuditError> {
        let mut reader = AuditReader::connect(&login.url).await?;
        let mut trail = reader.snapshot().await?;
        let declared = Declarations::read(&mut trail).await?;
        let mut verification = Verification::new(&mut report);
        let root = verification.find_seal(&mut trail, declared.root.as_ref()).await?;
        let checkpoint = verification.find_checkpoint(&mut trail, self.checkpoint.as_ref(), root.as_ref()).await?;
        let first = checkpoint.or_else(|| root.clone());
        let from = first.as_ref().map_or(0, |seal| seal.number);
        let read = |path: &PathBuf| Anchors::read(path, from, &declared);
        let mut anchors = self.anchors.as_ref().map(read).transpose()?;
        if let (Some((number, _)), Some(what)) = (&declared.root, anchors.as_ref().and_then(|a| a.root_fault)) {
            verification.find(&Finding::Anchor { number: *number, what });
        }
        let last = verification.verify(&mut trail, (root, first), anchors.as_mut()).await?;
        if let Some(anchors) = anchors {
            verification.compare_rest(anchors, last.as_ref());
        }
        let Verification { findings, events, sealed, seals, left_over, .. } = verification;
        let left_over =
            left_over.into_iter().map(|(login, rows)| format!("{rows} rows changed past the service by {login}"));
        let notes: Vec<_> = declared.acts.into_iter().chain(left_over).collect();
        if findings > 0 {
            notes.into_iter().for_each(report);
            event::audit_trail_invalid(findings);
            return Err(AuditError::Changed(findings));
        }
        report(format!("{events} events, {sealed} of them under {seals} seals: nothing was changed"));
        notes.into_iter().for_each(&mut report);
        if from > 0 {
            report(format!("verified after seal {from}"));
        }
        if let Some(last) = last {
            report(format!("checkpoint {}:{}", last.number, hex(&last.digest)));
        }
        Ok(())
    }
}

/// State of a verification: what was found, and the journal lines since the last complete seal.
struct Verification<'r> {
    report: &'r mut dyn FnMut(String),
    findings: usize,
    events: u64,
    sealed: u64,
    seals: u64,
    /// Events `row_changed` by login.
    left_over: BTreeMap<String, u64>,
    /// Input of the next seal's digest so far.
    content: Vec<u8>,
    /// That seal's entries for its lines so far.
    entries: Vec<u8>,
}

impl<'r> Verification<'r> {
    fn new(report: &'r mut dyn FnMut(String)) -> Self {
        let (content, entries, left_over) = Default::default();
        Self { report, findings: 0, events: 0, sealed: 0, seals: 0, left_over, content, entries }
    }

    fn find(&mut self, finding: &Finding) {
        self.findings += 1;
        (self.report)(finding.to_string());
    }

    /// The stored seal of the root or a checkpoint.
    async fn find_seal(
        &mut self,
        trail: &mut AuditSnapshot<'_>,
        expected: Option<&SealDigest>,
    ) -> Result<Option<StoredSeal>, DbError> {
        let Some((number, expected)) = expected else { return Ok(None) };
        let number = *number;
        let seal = trail.next_seal(number.saturating_sub(1)).await?.filter(|seal| seal.number == number);
        let what = match &seal {
            None => "is the root or checkpoint, and is not in the database",
            Some(seal) if hex(&seal.digest) != *expected => "has another digest than the root or checkpoint",
            Some(_) => return Ok(seal),
        };
        self.find(&Finding::Anchor { number, what });
        Ok(seal)
    }

    /// The stored seal of the checkpoint. A root never replaces it: who can declare one could have
    /// rewritten what the checkpoint proves.
    async fn find_checkpoint(
        &mut self,
        trail: &mut AuditSnapshot<'_>,
        checkpoint: Option<&Checkpoint>,
        root: Option<&StoredSeal>,
    ) -> Result<Option<StoredSeal>, DbError> {
        let expected = checkpoint.map(|Checkpoint(seal)| seal);
        if let Some(&(number, _)) = expected
            && root.is_some_and(|root| root.number > number)
        {
            self.find(&Finding::Anchor { number, what: "is the checkpoint, and was pruned: give a later one" });
            return Ok(None);
        }
        self.find_seal(trail, expected).await
    }

    /// Checks all seals after `first`, their lines, the lines without a seal, and the events without a
    /// line after the root. Returns the last seal.
    async fn verify(
        &mut self,
        trail: &mut AuditSnapshot<'_>,
        (root, first): (Option<StoredSeal>, Option<StoredSeal>),
        mut anchors: Option<&mut Anchors>,
    ) -> Result<Option<StoredSeal>, DbError> {
        let mut compare = |seal: &StoredSeal| {
            let what = anchors.as_mut()?.compare(seal.number, &seal.digest)?;
            Some(Finding::Anchor { number: seal.number, what })
        };
        if let Some(differing) = first.as_ref().and_then(&mut compare) {
            self.find(&differing);
        }
        let mut previous = first;
        loop {
            let (number, upto) = previous.as_ref().map_or((0, i64::MIN), |seal| (seal.number, seal.upto));
            let Some(seal) = trail.next_seal(number).await? else {
                trail.lines(upto, i64::MAX, |line| self.line(&line, false)).await?;
                break;
            };
            if seal.number > number + 1 {
                self.find(&Finding::NoSeal { first: number + 1, last: seal.number - 1 });
            }
            trail.lines(upto, seal.upto, |line| self.line(&line, true)).await?;
            self.complete_seal(&seal, previous.as_ref());
            if let Some(differing) = compare(&seal) {
                self.find(&differing);
            }
            previous = Some(seal);
        }
        let root = root.map(|seal| seal.upto);
        trail.unjournaled(root, |tenant, event| self.find(&Finding::Inserted { tenant, event })).await?;
        Ok(previous)
    }

    /// Checks the next line of the journal and its event.
    fn line(&mut self, line: &JournaledEvent, is_sealed: bool) {
        self.events += 1;
        let JournaledEvent { position, tenant, event, .. } = *line;
        match &line.current {
            None => self.find(&Finding::Removed { position, tenant, event }),
            Some(now) if digest(now, line.changes.as_deref()) != line.digest.as_slice() => {
                self.find(&Finding::Changed { position, tenant, event });
            }
            Some(now) if now.action == "row_changed" => *self.left_over.entry(now.subject.clone()).or_default() += 1,
            Some(_) => {}
        }
        if is_sealed {
            self.sealed += 1;
            self.content.extend(position.to_be_bytes());
            self.content.extend(tenant.as_bytes().iter().chain(event.as_bytes()).chain(&line.digest));
            self.entries.extend(position.to_be_bytes());
            self.entries.extend(line.digest.iter().take(ENTRY_LEN - 8));
        }
    }

    /// Recomputes a seal from the lines that it covers.
    fn complete_seal(&mut self, seal: &StoredSeal, previous: Option<&StoredSeal>) {
        self.seals += 1;
        let content = std::mem::take(&mut self.content);
        let entries = std::mem::take(&mut self.entries);
        let mut text = previous.map_or_else(Vec::new, |previous| previous.digest.clone());
        text.extend(seal.number.to_be_bytes().into_iter().chain(seal.upto.to_be_bytes()).chain(content));
        let events = i64::try_from(entries.len() / ENTRY_LEN).unwrap_or(i64::MAX);
        if sha256(&text) != seal.digest.as_slice() || seal.lines != entries || seal.events != events {
            let lines = differences(seal, &entries);
            if lines.is_empty() {
                self.find(&Finding::Seal { number: seal.number });
            }
            for finding in &lines {
                self.find(finding);
            }
        }
    }

    /// Reports the seals that only the log has, and a log that ends too early.
    fn compare_rest(&mut self, anchors: Anchors, last: Option<&StoredSeal>) {
        for number in anchors.digests.into_keys() {
            self.find(&Finding::Anchor { number, what: "is in the log but not in the database" });
        }
        // A seal covers all previous ones, so only the last must be in the log. One may be on its
        // way.
        if last.is_some_and(|last| anchors.last < last.number - 1) {
            let what = "is the last one in the log, and the database has later seals";
            self.find(&Finding::Anchor { number: anchors.last, what });
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

/// Digest of an event, computed as `palisade.audit_digest` does.
pub(super) fn digest(event: &AuditEvent, changes: Option<&str>) -> [u8; 32] {
    let (tenant, id) = (event.tenant.to_string(), event.id.to_string());
    let at = event.at.timestamp_micros().to_string();
    let AuditEvent { subject, client, action, object, trace_id, reason, .. } = event;
    let fields = [&tenant, &id, &at, subject, client, action, object, trace_id, reason].map(String::as_str);
    let text = fields.into_iter().chain(changes).fold(String::new(), |mut text, field| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}:{field}", field.len());
        text
    });
    sha256(text.as_bytes())
}
