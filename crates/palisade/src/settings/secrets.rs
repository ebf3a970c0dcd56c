//! Where each secret was read, whether two are the same, and whether one is guessable, without
//! keeping any of them (SECRET-03, SECRET-05).
//!
//! The reader registers every secret here; `serve` and the commands log what was registered.

use std::{
    collections::BTreeSet,
    fmt,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use zeroize::Zeroizing;

use super::{Reader, row::SettingName};
use crate::{crypto::sha256, telemetry::event};

/// Where a secret was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// From a variable.
    Environment,
    /// From a file named by an `APP_…_FILE` variable.
    File(PathBuf),
    /// From the TOML file of `APP_CONFIG`.
    Config(PathBuf),
}

/// A record that a secret was read, without its value.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretRead {
    /// The variable of its setting.
    pub setting: String,
    /// Where it was read.
    pub source: SecretSource,
    /// Changes when the secret does.
    digest: [u8; 32],
    /// A digest for each secret part; see [`secret_parts`].
    parts: Vec<[u8; 32]>,
}

/// Logs a security event for each secret that a component has read.
pub fn log_secrets_read(component: &str, reads: &[SecretRead]) {
    for read in reads {
        event::secret_read(component, &read.setting, &read.source.to_string());
    }
}

impl SecretRead {
    pub(super) fn new(setting: &SettingName, text: &str, source: SecretSource) -> Self {
        let parts = secret_parts(text).into_iter().map(|part| sha256(part.as_bytes())).collect();
        Self { setting: setting.variable(), source, digest: sha256(text.as_bytes()), parts }
    }
}

/// The secret parts of a setting: the password of a URL, each key of a keyset, or all of it.
fn secret_parts(text: &str) -> Vec<Zeroizing<String>> {
    if let Ok(url) = Url::parse(text.trim())
        && url.has_host()
    {
        let password = url.password().map(percent_decoded);
        return password.map(|password| Zeroizing::new(password.expose_secret().to_owned())).into_iter().collect();
    }
    let key = |part: &str| part.split_once(':').map_or(part, |(_, key)| key).trim().to_owned();
    text.split(',').map(|part| Zeroizing::new(key(part))).collect()
}

/// Adds a fault for each secret that another setting also has, and for each file of secrets that
/// users other than its owner and group can access.
pub(super) fn check(r: &mut Reader) {
    let secrets = r.secrets_read();
    for secret in &secrets {
        let is_same = |other: &&SecretRead| {
            other.setting != secret.setting && secret.parts.iter().any(|part| other.parts.contains(part))
        };
        if let Some(SecretRead { setting, .. }) = secrets.iter().find(is_same) {
            r.add(&secret.setting, format!("is the same secret as in {setting}; generate a separate one"));
        }
        if let SecretSource::File(path) | SecretSource::Config(path) = &secret.source
            && let Some(fault) = file_mode_fault(path)
        {
            r.add(&secret.setting, fault);
        }
    }
}

/// A fault if users other than the owner and the group of a file can access it.
pub(crate) fn file_mode_fault(path: &Path) -> Option<String> {
    let Ok(metadata) = std::fs::metadata(path) else {
        return Some(format!("the mode of {} cannot be read", path.display()));
    };
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o007 != 0).then(|| {
        format!(
            "{} is accessible to all users (mode {mode:03o}); set its mode to 400 or 440. Kubernetes: `defaultMode: \
             0400` in the secret's volume, or 0440 with fsGroup. Docker Swarm: `mode: 0400` and `uid`",
            path.display()
        )
    })
}

/// A URL without user and password; `None` if it is malformed.
pub(crate) fn without_credentials(url: &SecretString) -> Option<Url> {
    let mut url = Url::parse(url.expose_secret()).ok()?;
    url.set_username("").and_then(|()| url.set_password(None)).ok()?;
    Some(url)
}

/// The password that its percent-encoded form in a URL stands for.
pub(crate) fn percent_decoded(password: &str) -> SecretString {
    // Decoded as a form value, where a plus sign would be a space.
    let form = Zeroizing::new(format!("p={}", password.replace('+', "%2B").replace('&', "%26")));
    let value = url::form_urlencoded::parse(form.as_bytes()).next();
    SecretString::from(value.map(|(_, password)| password.into_owned()).unwrap_or_default())
}

/// Words of common and of example passwords. A random one contains none.
const COMMON_WORDS: &str =
    "password passwort changeme change-me change_me secret default postgres letmein qwerty example";

/// Whether an attacker would try the password: it contains a common word or the name of its login,
/// or has fewer than six different characters.
pub(super) fn is_guessable(password: &str, login: &str) -> bool {
    let lower = password.to_lowercase();
    lower.chars().collect::<BTreeSet<_>>().len() < 6
        || COMMON_WORDS.split(' ').any(|word| lower.contains(word))
        || (!login.is_empty() && lower.contains(&login.to_lowercase()))
}

/// Without the digests, from which a weak secret could be guessed.
impl fmt::Debug for SecretRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.setting, self.source)
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Config(path) => write!(f, "configuration {}", path.display()),
        }
    }
}
