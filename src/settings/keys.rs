use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use secrecy::SecretString;
use url::Url;

use super::{Reader, checks};
use crate::crypto::{IndexKeys, MasterKeyset};

/// Keys of sealed fields (CRYPTO-04, CRYPTO-06). docs/keys.md says how they are made, rotated and kept.
#[derive(Clone, Debug)]
pub struct Keys {
    /// `APP_KEYS__MASTER`, required without a vault: master keys as `2:<key>,1:<key>`, 32 random bytes in base64 each.
    pub master: Option<Arc<MasterKeyset>>,
    /// `APP_KEYS__VAULT__…`: master keys that stay in a vault.
    pub vault: Option<Vault>,
    /// `APP_KEYS__PROVIDER`: `keyset` or `vault`, whichever wraps new data keys; the other one opens those that it wraps
    /// still. Required if there are both.
    pub provider: KeyProvider,
    /// `APP_KEYS__INDEX`, required: keys of blind indexes in the same form. New rows are found by the first.
    pub index: Arc<IndexKeys>,
    /// `APP_KEYS__USUAL_PER_MINUTE`, default 300, 1 to 1000000: when somebody sees more customers than this in plain text
    /// at once, or faster than this a minute after that, at one replica, there is a security event (CRYPTO-07).
    pub usual_per_minute: u32,
    /// `APP_KEYS__REFRESH_MS`, default 5000, 1 to 3600000, the same on all replicas: how long a replica takes the newest
    /// data key that it knows of a tenant for the newest. `keys rotate` waits for that long, and for statements to end.
    pub refresh: Duration,
}

/// Who wraps data keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyProvider {
    /// The first of `APP_KEYS__MASTER`.
    Keyset,
    /// The newest version that the vault has of its key.
    Vault,
}

/// A key of the Transit engine of Vault (1.13 or newer) or `OpenBao`.
#[derive(Clone, Debug)]
pub struct Vault {
    /// `APP_KEYS__VAULT__URL`: `https://vault.example.com:8200`, or an agent's `http://` on a loopback address.
    pub url: Url,
    /// `APP_KEYS__VAULT__TOKEN`, required: may `update` `<mount>/encrypt/<key>` and `<mount>/decrypt/<key>`, and nothing
    /// else. In a file it is read again when it changes, as when an agent renews it.
    pub token: SecretString,
    /// `APP_KEYS__VAULT__KEY`, default the package's name: the key's, of an AEAD type such as `aes256-gcm96`.
    pub key: String,
    /// `APP_KEYS__VAULT__MOUNT`, default `transit`: where the engine is.
    pub mount: String,
    /// `APP_KEYS__VAULT__NAMESPACE`, default none.
    pub namespace: Option<String>,
    /// `APP_KEYS__VAULT__CA_PATH`: a PEM file of the authorities that may have signed its certificate. Default: those of
    /// the system.
    pub authorities: Option<PathBuf>,
    /// `APP_KEYS__VAULT__TIMEOUT_MS`, default 1000, at most 10000 and less than half of `APP_HTTP__REQUEST_TIMEOUT_MS`: for one
    /// answer.
    pub timeout: Duration,
}

impl FromStr for KeyProvider {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "keyset" => Ok(Self::Keyset),
            "vault" => Ok(Self::Vault),
            _ => Err("expected `keyset` or `vault`"),
        }
    }
}

impl Keys {
    /// `None` if one is missing or unreadable; the reader then holds the faults.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let (vault, wanted) = (Vault::read(r), r.optional("keys.provider"));
        let needs_keyset = wanted == Some(KeyProvider::Keyset) || !r.has("keys.vault.url");
        let wants_keyset = needs_keyset || r.has("keys.master");
        let master = if wants_keyset { r.secret_with("keys.master", MasterKeyset::from_text) } else { None };
        let lacks_keyset = wants_keyset && master.is_none();
        let master = master.map(Arc::new);
        let index = r.secret_with("keys.index", IndexKeys::from_text);
        let usual_per_minute = r.within("keys.usual_per_minute", 300, 1..=1_000_000);
        let refresh = r.millis("keys.refresh_ms", 5_000);
        let provider = match (wanted, &master, &vault) {
            (None, None, _) => KeyProvider::Vault,
            (None, Some(_), both) => {
                if both.is_some() && !r.has("keys.provider") {
                    r.fault("keys.provider", "is required, since there are both keys.master and keys.vault.url");
                }
                KeyProvider::Keyset
            }
            (Some(KeyProvider::Vault), _, None) => {
                r.fault("keys.provider", "is `vault`, so keys.vault.url is required");
                KeyProvider::Vault
            }
            (Some(provider), ..) => provider,
        };
        if lacks_keyset {
            return None;
        }
        Some(Self { master, vault, provider, index: Arc::new(index?), usual_per_minute, refresh })
    }

    /// With the keyset of others, if there is one in both.
    pub(crate) fn with_master(&self, others: &Self) -> Option<Self> {
        self.master.as_ref()?;
        Some(Self { master: Some(Arc::clone(others.master.as_ref()?)), ..self.clone() })
    }

    /// With the token of others, if there is a vault in both.
    pub(crate) fn with_token(&self, others: &Self) -> Option<Self> {
        let (vault, token) = (self.vault.clone()?, others.vault.as_ref()?.token.clone());
        Some(Self { vault: Some(Vault { token, ..vault }), ..self.clone() })
    }
}

impl Vault {
    /// `None` without a URL, or if something is missing or unreadable.
    fn read(r: &mut Reader) -> Option<Self> {
        let rest = ["token", "key", "mount", "namespace", "ca_path", "timeout_ms"];
        if !r.has("keys.vault.url") {
            for leaf in rest {
                let key = format!("keys.vault.{leaf}");
                if r.has(&key) {
                    r.know(&key);
                    r.fault(&key, "is of no use without keys.vault.url");
                }
            }
            return None;
        }
        let url: Option<Url> = r.required("keys.vault.url");
        let production = r.profile() == super::Profile::Production;
        if let Some(url) = &url {
            checks::check_service_url("keys.vault.url", url, production, r);
        }
        let token = r.secret("keys.vault.token");
        if let Some(token) = &token {
            checks::check_token("keys.vault.token", token, production, r);
        }
        let named = |r: &mut Reader, key: &str, default: &str, more: &str| {
            let name = r.or(key, default.to_owned());
            let allowed = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            let empty = name.split('/').any(|part| part.is_empty() || part.starts_with('.'));
            if name.len() > 40 || empty || !name.chars().all(allowed) {
                r.fault(
                    key,
                    format!("must be 1 to 40 letters, digits or any of `{more}`, and no part may begin with a dot"),
                );
            }
            name
        };
        let key = named(r, "keys.vault.key", env!("CARGO_PKG_NAME"), "-_.");
        let mount = named(r, "keys.vault.mount", "transit", "-_./");
        let namespace = r.optional("keys.vault.namespace");
        let authorities = r.optional("keys.vault.ca_path");
        let timeout = Duration::from_millis(r.within("keys.vault.timeout_ms", 1_000, 1..=10_000));
        Some(Self { url: url?, token: token?, key, mount, namespace, authorities, timeout })
    }
}
