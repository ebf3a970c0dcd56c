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
}

impl Declarations {
    /// Reads the declarations. One that was changed does not count.
    pub(super) async fn read(trail: &mut AuditSnapshot<'_>) -> Result<Self, DbError> {
        let mut declarations = Self::default();
        for line in trail.declarations().await? {
            let Some(event) = line.current else { continue };
            if digest(&event, line.changes.as_deref()) != line.digest.as_slice() {
                continue;
            }
            if event.action == "audit_restored" {
                let lost = event.changes.into_iter().filter_map(|seal| Some((seal.key.parse().ok()?, seal.before?)));
                declarations.lost.extend(lost);
            } else if let Some((number, digest)) =
                event.object.strip_prefix("up to seal ").and_then(|o| o.split_once(' '))
                && let Ok(number) = number.parse()
            {
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
}

impl Anchors {
    /// Reads the `audit_sealed` events of a log file, line by line. Keeps those from the seal `from`
    /// on that no declared restore removed.
    pub(super) fn read(path: &Path, from: i64, lost: &BTreeSet<SealDigest>) -> Result<Self, AuditError> {
        let failed = |error| AuditError::Anchors(path.to_owned(), error);
        let mut anchors = Self { digests: BTreeMap::new(), last: 0 };
        let mut found = false;
        for line in BufReader::new(File::open(path).map_err(failed)?).split(b'\n') {
            let Some(anchor) = anchor(&line.map_err(failed)?) else { continue };
            found = true;
            if lost.contains(&anchor) {
                continue;
            }
            let (number, digest) = anchor;
            anchors.last = anchors.last.max(number);
            if number >= from {
                anchors.digests.entry(number).or_default().insert(digest);
            }
        }
        if found { Ok(anchors) } else { Err(AuditError::NoAnchors(path.to_owned())) }
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

/// The seal of a log line, if it is the event of one.
fn anchor(line: &[u8]) -> Option<SealDigest> {
    let line: Value = serde_json::from_slice(line).ok()?;
    (line.get("event")? == "audit_sealed" && line.get("target")? == "security")
        .then(|| Some((line.get("number")?.as_i64()?, line.get("digest")?.as_str()?.to_owned())))?
}
