//! Where settings come from, so that they can be read again.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{Faults, Settings};
use crate::crypto::sha256;

/// What settings were read from. Files may say something else by now (SECRET-04). Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    variables: Arc<BTreeMap<String, SecretString>>,
    /// Those that were read.
    files: Arc<[PathBuf]>,
    /// Rung when the files are to be looked at now.
    bell: watch::Sender<()>,
}

/// When files are to be looked at.
#[derive(Debug)]
pub struct Looks {
    every: Duration,
    bell: watch::Receiver<()>,
}

/// Between two looks, however often the bell rings.
const REST: Duration = Duration::from_millis(100);

impl Sources {
    pub(super) fn new(variables: &BTreeMap<String, String>) -> Self {
        let own = variables.iter().filter(|(name, _)| name.starts_with("APP_"));
        let kept = own.map(|(name, value)| (name.clone(), SecretString::from(value.as_str())));
        Self { variables: Arc::new(kept.collect()), files: Arc::default(), bell: watch::Sender::new(()) }
    }

    /// With the files that were read.
    pub(super) fn of(self, files: Vec<PathBuf>) -> Self {
        Self { files: files.into(), ..self }
    }

    /// The settings as they are there now.
    pub fn read(&self) -> Result<Settings, Faults> {
        let variables = self.variables.iter();
        let variables = variables.map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect();
        Settings::from_variables(variables)
    }

    /// Has everybody who follows the files look at them now.
    pub fn look_now(&self) {
        self.bell.send_replace(());
    }

    /// Whether anybody follows them.
    #[must_use]
    pub fn are_followed(&self) -> bool {
        self.bell.receiver_count() > 0
    }

    /// Follows the files, from what they are at the start on: they may have changed since they were read.
    #[must_use]
    pub fn looks(&self, every: Duration) -> Looks {
        let mut bell = self.bell.subscribe();
        bell.mark_changed();
        Looks { every, bell }
    }

    /// Of all files that settings were read from. What cannot be read counts as empty.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let digests = self.files.iter().map(|path| {
            let read = std::fs::read(path).map(Zeroizing::new);
            sha256(read.as_ref().map_or(&[], |bytes| bytes.as_slice()))
        });
        sha256(&digests.collect::<Vec<_>>().concat())
    }
}

impl Looks {
    /// Waits for the next.
    pub async fn next(&mut self) {
        tokio::time::sleep(REST).await;
        // At the end there is nobody to ring, and no harm in looking once more.
        let _ = tokio::time::timeout(self.every, self.bell.changed()).await;
    }
}

/// Without what may be secret.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
