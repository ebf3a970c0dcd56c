//! The sources of the settings, so that they can be read again when a file changes (SECRET-04).

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{Faults, Reader, ServiceSections, ServiceSettings, Settings};
use crate::crypto::sha256;

/// Shortest time between two reloads.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// The variables and files that settings were read from. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    variables: Arc<BTreeMap<String, SecretString>>,
    /// The files that were read.
    files: Arc<[PathBuf]>,
    /// The settings of the service, which have the same sources.
    service: ServiceSections,
    /// Notified when the files are to be checked at once.
    notify: watch::Sender<()>,
    /// Changes at SIGHUP.
    hangups: watch::Sender<()>,
}

/// Says when files are to be checked for changes: at an interval, and on request.
#[derive(Debug)]
pub struct ReloadTicker {
    interval: Duration,
    notified: watch::Receiver<()>,
}

impl Sources {
    pub(super) fn new(variables: &BTreeMap<String, String>, service: ServiceSections) -> Self {
        let variables = variables.iter().filter(|(name, _)| name.starts_with("APP_"));
        let variables = variables.map(|(name, value)| (name.clone(), SecretString::from(value.as_str())));
        Self {
            variables: Arc::new(variables.collect()),
            files: Arc::default(),
            service,
            notify: watch::Sender::new(()),
            hangups: watch::Sender::new(()),
        }
    }

    pub(super) fn with_files(self, files: Vec<PathBuf>) -> Self {
        Self { files: files.into(), ..self }
    }

    /// Reads the settings again; files may have changed.
    pub fn read(&self) -> Result<Settings, Faults> {
        Settings::from_variables(self.variables(), self.service)
    }

    /// Reads the settings of the service. [`Settings::load`] has reported their faults.
    pub fn read_service<S: ServiceSettings>(&self) -> Result<S, Faults> {
        let mut reader = Reader::new(self.variables(), self.service);
        let settings = S::read(&mut reader);
        reader.finish(settings)
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let variables = self.variables.iter();
        variables.map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
    }

    /// Makes every ticker fire now.
    pub fn reload_now(&self) {
        self.notify.send_replace(());
    }

    /// At SIGHUP: makes every ticker fire, and every follower of [`Self::hangups`] act.
    pub fn hang_up(&self) {
        self.reload_now();
        self.hangups.send_replace(());
    }

    /// Changes at SIGHUP. The refresh of issuer keys follows it.
    #[must_use]
    pub fn hangups(&self) -> watch::Receiver<()> {
        self.hangups.subscribe()
    }

    /// Whether there is a ticker.
    #[must_use]
    pub fn are_followed(&self) -> bool {
        self.notify.receiver_count() > 0
    }

    /// A ticker that fires first at once: files may have changed since they were read.
    #[must_use]
    pub fn reload_ticker(&self, interval: Duration) -> ReloadTicker {
        let mut notified = self.notify.subscribe();
        notified.mark_changed();
        ReloadTicker { interval, notified }
    }

    /// Digest of all files that settings were read from. An unreadable file counts as empty.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let digests = self.files.iter().map(|path| {
            let read = std::fs::read(path).map(Zeroizing::new);
            sha256(read.as_ref().map_or(&[], |bytes| bytes.as_slice()))
        });
        sha256(&digests.collect::<Vec<_>>().concat())
    }
}

impl ReloadTicker {
    /// Waits until the files are to be checked.
    pub async fn next(&mut self) {
        tokio::time::sleep(MIN_INTERVAL).await;
        // An error means that the sources are gone; one more check does no harm.
        let _ = tokio::time::timeout(self.interval, self.notified.changed()).await;
    }
}

/// Without values, which may be secret.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
