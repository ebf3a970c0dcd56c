//! What is known of secrets without knowing them: where each came from, and which two are the same (SECRET-03,
//! SECRET-05).

use std::{
    collections::BTreeMap,
    fmt,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use zeroize::Zeroizing;

use super::{Reader, reader::variable};
use crate::{crypto::sha256, telemetry::event};

/// Where a secret was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// From a variable.
    Environment,
    /// From a file of its own.
    File(PathBuf),
    /// From the file of `APP_CONFIG`.
    Config(PathBuf),
}

/// A secret that was read. Not the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretRead {
    /// The variable of its setting.
    pub setting: String,
    /// Where it was.
    pub source: SecretSource,
    /// What tells it from the one after it.
    digest: [u8; 32],
}

/// Raises the event of each secret that a component has read.
pub fn tell(component: &str, reads: &[SecretRead]) {
    for read in reads {
        event::secret_read(component, &read.setting, &read.source.to_string());
    }
}

/// The secrets that a reader came across, by setting.
#[derive(Default)]
pub(super) struct Found(BTreeMap<String, One>);

struct One {
    source: SecretSource,
    /// Of all of the setting, and of each part that is secret.
    digest: [u8; 32],
    parts: Vec<[u8; 32]>,
}

impl Found {
    /// Notes a secret of `key`.
    pub(super) fn note(&mut self, key: &str, text: &str, source: SecretSource) {
        let parts = parts(text).into_iter().map(|part| sha256(part.as_bytes())).collect();
        self.0.insert(key.to_owned(), One { source, digest: sha256(text.as_bytes()), parts });
    }

    /// Which there are.
    pub(super) fn reads(&self) -> Vec<SecretRead> {
        let read = |(key, one): (&String, &One)| SecretRead {
            setting: variable(key),
            source: one.source.clone(),
            digest: one.digest,
        };
        self.0.iter().map(read).collect()
    }
}

/// What is secret of a setting: the password of a URL, each key of a keyset, or all of it.
fn parts(text: &str) -> Vec<Zeroizing<String>> {
    if let Ok(url) = Url::parse(text.trim())
        && url.has_host()
    {
        let password = url.password().map(|password| Zeroizing::new(decoded(password).expose_secret().to_owned()));
        return password.into_iter().collect();
    }
    let key = |part: &str| part.split_once(':').map_or(part, |(_, key)| key).trim().to_owned();
    text.split(',').map(|part| Zeroizing::new(key(part))).collect()
}

/// Adds a fault for each secret that is another's too, and for each file of secrets that everybody can read.
pub(super) fn check(r: &mut Reader) {
    let mut faults = Vec::new();
    for (key, one) in &r.secrets.0 {
        let shares = |(other, theirs): &(&String, &One)| {
            *other != key && one.parts.iter().any(|part| theirs.parts.contains(part))
        };
        if let Some((other, _)) = r.secrets.0.iter().find(shares) {
            faults.push((key.clone(), format!("is the same secret as in {}", variable(other))));
        }
        if let SecretSource::File(path) | SecretSource::Config(path) = &one.source
            && let Some(fault) = readable_by_all(path)
        {
            faults.push((key.clone(), fault));
        }
    }
    for (key, fault) in faults {
        r.fault(&key, fault);
    }
}

/// A fault if somebody who is neither the owner of the file nor of its group may do anything with it.
pub(crate) fn readable_by_all(path: &Path) -> Option<String> {
    let Ok(metadata) = std::fs::metadata(path) else {
        return Some("nobody can say who may read the file".to_owned());
    };
    let mode = metadata.permissions().mode();
    let open = mode & 0o007 != 0;
    open.then(|| format!("{} is open to everybody (mode {:03o}); make it 400 or 440", path.display(), mode & 0o777))
}

/// A URL without user and password: where it leads, and how. `None` if it is none.
pub(crate) fn without_credentials(url: &SecretString) -> Option<Url> {
    let mut url = Url::parse(url.expose_secret()).ok()?;
    url.set_username("").and_then(|()| url.set_password(None)).ok()?;
    Some(url)
}

/// A password as it is, and not as a URL writes it.
pub(crate) fn decoded(password: &str) -> SecretString {
    // As a value of a form, but for the plus sign, which is itself here.
    let form = Zeroizing::new(format!("p={}", password.replace('+', "%2B").replace('&', "%26")));
    let value = url::form_urlencoded::parse(form.as_bytes()).next();
    SecretString::from(value.map(|(_, password)| password.into_owned()).unwrap_or_default())
}

/// What a password must not have: it is no random text then, or the one of an example.
const WORDS: [&str; 11] = [
    "password",
    "passwort",
    "changeme",
    "change-me",
    "change_me",
    "secret",
    "default",
    "postgres",
    "letmein",
    "qwerty",
    "example",
];

/// Whether somebody would try it out: a word that many take, the login's name, or few different characters.
pub(super) fn is_guessable(password: &str, login: &str) -> bool {
    let lower = password.to_lowercase();
    let different = lower.chars().collect::<std::collections::BTreeSet<_>>().len();
    different < 6
        || WORDS.iter().any(|word| lower.contains(word))
        || (!login.is_empty() && lower.contains(&login.to_lowercase()))
}

/// Without the digest: what is easily guessed could be told from it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_03_the_secret_part_of_a_setting_is_found() {
        let parts = |text: &str| parts(text).iter().map(|part| part.to_string()).collect::<Vec<_>>();
        assert_eq!(parts(&["postgres://app_writer:", "p%2Cw", "@db/app"].concat()), ["p,w"]);
        assert_eq!(parts("rediss://cache"), Vec::<String>::new());
        assert_eq!(parts(" 2:AAA=, 1:BBB= "), ["AAA=", "BBB="]);
        assert_eq!(parts("AAA=\n"), ["AAA="]);
    }

    #[test]
    fn secret_03_a_password_that_many_take_is_known() {
        for bad in [
            "Changeme-20261125",
            "xPASSWORDx0123456",
            "app_writer_7f3a9c",
            "aaaaaaaaaaaaaaaaaaaa",
            "1212121234343434",
            "abcdeabcdeabcdeabcde",
        ] {
            assert!(is_guessable(bad, "app_writer"), "{bad}");
            assert!(is_guessable(bad, "App_Writer"), "{bad}");
        }
        assert!(!is_guessable("abcdefabcdefabcdef", "app_writer"));
        assert!(!is_guessable("0123456789abcdef", "app_writer") && !is_guessable("v7Qm2xK9-tR4w_Zp", ""));
    }
}
