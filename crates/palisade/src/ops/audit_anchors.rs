//! Seals in the log, and the declarations that explain what is missing from the database (LOG-05).
//!
//! In: a file with log lines, and the events of prunings and restores. Out: the digests that
//! [`audit`](super::audit) compares with the stored seals. A digest that a declared restore made
//! invalid is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use chrono::{DateTime, Duration, Utc};
use serde_json::Value;

use super::audit::{AuditError, digest};
use crate::{crypto::hex, db::DbError, store::maintenance::AuditSnapshot};

/// Number and digest of a seal, in hexadecimal.
pub(super) type SealDigest = (i64, String);

/// What operators declared in the trail itself.
#[derive(Debug, Default)]
pub(super) struct Declarations {
    /// The last seal of the pruned part.
    pub(super) root: Option<SealDigest>,
    /// Seals that a restore removed. The log still has them.
    pub(super) lost: BTreeSet<SealDigest>,
    /// One line per declaration, for auditors.
    pub(super) acts: Vec<String>,
}

impl Declarations {
    /// Reads the declarations. One that was changed does not count, and none that another login than
    /// the owner's made.
    pub(super) async fn read(trail: &mut AuditSnapshot<'_>) -> Result<Self, DbError> {
        let mut declarations = Self::default();
        for line in trail.declarations().await? {
            let Some(event) = line.current else { continue };
            if digest(&event, line.changes.as_deref()) != line.digest.as_slice() {
                continue;
            }
            if event.action == "audit_restored" {
                let lost = event.changes.into_iter().filter_map(|seal| Some((seal.key.parse().ok()?, seal.before?)));
                let lost: BTreeSet<SealDigest> = lost.collect();
                if let (Some((first, _)), Some((last, _))) = (lost.first(), lost.last()) {
                    let count = lost.len();
                    let what = format!("{count} digests of seals {first} to {last} lost by a restore {}", event.object);
                    declarations.acts.push(format!("declared at {} by {}: {what}", event.at, event.subject));
                }
                declarations.lost.extend(lost);
            } else if let Some((number, digest)) =
                event.object.strip_prefix("up to seal ").and_then(|o| o.split_once(' '))
                && let Ok(number) = number.parse()
            {
                let act = format!("declared at {} by {}: pruned up to seal {number}", event.at, event.subject);
                declarations.acts.push(act);
                declarations.root = declarations.root.max(Some((number, digest.to_owned())));
            }
        }
        Ok(declarations)
    }
}

/// Digests of the seals in the log, by number.
#[derive(Debug)]
pub(super) struct Anchors {
    pub(super) digests: BTreeMap<i64, BTreeSet<String>>,
    /// The highest number, also of seals before the first one that is kept.
    pub(super) last: i64,
    /// What the log says against the declared root.
    pub(super) root_fault: Option<&'static str>,
}

/// A pruning deletes nothing younger.
const MIN_AGE: Duration = Duration::days(30);

/// A line of the log about the trail.
enum LogLine {
    Sealed(SealDigest, Option<DateTime<Utc>>),
    Pruned(SealDigest, Option<DateTime<Utc>>),
    Restored(Vec<SealDigest>),
}

impl Anchors {
    /// Reads a log file, line by line. Keeps the seals from the number `from` on, without those that a
    /// restore removed which both the trail and the log declare.
    pub(super) fn read(path: &Path, from: i64, declared: &Declarations) -> Result<Self, AuditError> {
        let failed = |error| AuditError::Anchors(path.to_owned(), error);
        let root = declared.root.as_ref();
        let mut digests: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
        let (mut sealed, mut pruned, mut forgiven) = (None, None, Vec::new());
        let mut earlier = None;
        for line in BufReader::new(File::open(path).map_err(failed)?).split(b'\n') {
            match log_line(&line.map_err(failed)?) {
                Some(LogLine::Sealed(seal, at)) => {
                    if root == Some(&seal) {
                        sealed = sealed.or(at);
                    }
                    let (number, digest) = seal;
                    if number >= from {
                        digests.entry(number).or_default().insert(digest);
                    } else {
                        earlier = earlier.max(Some(number));
                    }
                }
                Some(LogLine::Pruned(seal, at)) if root == Some(&seal) => pruned = pruned.or(Some(at)),
                Some(LogLine::Restored(seals)) => {
                    forgiven.extend(seals.into_iter().filter(|seal| declared.lost.contains(seal)));
                }
                _ => {}
            }
        }
        if digests.is_empty() && earlier.is_none() {
            return Err(AuditError::NoAnchors(path.to_owned()));
        }
        for (number, digest) in forgiven {
            if let Some(digests) = digests.get_mut(&number) {
                digests.remove(&digest);
            }
        }
        digests.retain(|_, digests| !digests.is_empty());
        let root_fault = match (root, pruned, sealed) {
            (Some(_), None, _) => Some("is the declared root, and the log has no line of that pruning"),
            (Some(_), Some(Some(pruned)), Some(sealed)) if pruned - sealed < MIN_AGE => {
                Some("is the root, and the log has it for less than 30 days before the pruning")
            }
            _ => None,
        };
        let last = digests.keys().last().copied().max(earlier).unwrap_or_default();
        Ok(Self { digests, last, root_fault })
    }

    /// Takes the digests of a stored seal out. Returns how they differ from the stored one.
    pub(super) fn compare(&mut self, number: i64, digest: &[u8]) -> Option<&'static str> {
        let digests = self.digests.remove(&number)?;
        match digests.len() {
            // The seal was removed, and the service sealed the changed trail again.
            2.. => Some("has two digests in the log"),
            _ if !digests.contains(&hex(digest)) => Some("has another digest in the log"),
            _ => None,
        }
    }
}

/// Reads a line of the log, if it is about the trail.
fn log_line(line: &[u8]) -> Option<LogLine> {
    let line: Value = serde_json::from_slice(line).ok()?;
    if line.get("target")? != "security" {
        return None;
    }
    let seal = || Some((line.get("number")?.as_i64()?, line.get("digest")?.as_str()?.to_owned()));
    let at = || line.get("timestamp")?.as_str()?.parse().ok();
    match line.get("event")?.as_str()? {
        "audit_sealed" => Some(LogLine::Sealed(seal()?, at())),
        "audit_pruned" => Some(LogLine::Pruned(seal()?, at())),
        "audit_restored" => {
            let seals = line.get("seals")?.as_str()?.split(' ').filter_map(|seal| {
                let (number, digest) = seal.split_once(':')?;
                Some((number.parse().ok()?, digest.to_owned()))
            });
            Some(LogLine::Restored(seals.collect()))
        }
        _ => None,
    }
}
