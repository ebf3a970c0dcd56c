//! Master keys that never leave a vault: the Transit engine of Vault (1.13 or newer) or `OpenBao`.
//!
//! <https://developer.hashicorp.com/vault/api-docs/secret/transit>

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode};
use reqwest::{Certificate, Client, ClientBuilder, Response, redirect};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use url::Url;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{MasterKeyError, WrappedDataKey, master_keyset::place};
use crate::settings;

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest reason of the vault's that is told, in characters.
const MAX_REASON: usize = 200;

/// Longest word of it that is told. Of a key there are 43 characters in base64, and of a token 24 at least.
const MAX_WORD: usize = 16;

/// How long nobody asks a vault that did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// A key of the Transit engine.
pub(super) struct Transit {
    client: Client,
    /// Where to encrypt and to decrypt.
    encrypt: Url,
    decrypt: Url,
    token: HeaderValue,
    namespace: Option<HeaderValue>,
    /// What its versions are called, but for the number.
    name: String,
    patience: Patience,
}

/// Whose turn it is to ask a vault that did not answer.
struct Patience {
    timeout: Duration,
    /// Until when nobody asks.
    quiet: Mutex<Option<Instant>>,
}

#[derive(Serialize)]
struct Encrypt<'a> {
    plaintext: &'a str,
    associated_data: &'a str,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Serialize)]
struct Decrypt<'a> {
    ciphertext: &'a str,
    associated_data: &'a str,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

impl Transit {
    /// Reads the authorities of the vault's certificate, and asks the vault for nothing yet.
    pub(super) fn new(vault: &settings::Vault) -> Result<Self, MasterKeyError> {
        let unusable = |what: &str| MasterKeyError::Settings(what.to_owned());
        let place = |action| {
            let mut url = vault.url.clone();
            let mut path = url.path_segments_mut().ok()?;
            path.pop_if_empty().push("v1").extend(vault.mount.split('/')).push(action).push(&vault.key);
            drop(path);
            Some(url)
        };
        let mut token =
            HeaderValue::from_str(vault.token.expose_secret()).map_err(|_| unusable("the token is none"))?;
        token.set_sensitive(true);
        let namespace = vault.namespace.as_deref().map(HeaderValue::from_str).transpose();
        Ok(Self {
            client: client(vault)?.build().map_err(|_| unusable("there is no client for it"))?,
            encrypt: place("encrypt").ok_or_else(|| unusable("the URL is none"))?,
            decrypt: place("decrypt").ok_or_else(|| unusable("the URL is none"))?,
            token,
            namespace: namespace.map_err(|_| unusable("the namespace is none"))?,
            name: format!("vault:{}/{}", vault.mount, vault.key),
            patience: Patience { timeout: vault.timeout, quiet: Mutex::new(None) },
        })
    }

    /// Whether this is what one of its versions is called.
    pub(super) fn has(&self, name: &str) -> bool {
        let version = name.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix(":v"));
        version.is_some_and(|version| version.parse::<u32>().is_ok())
    }

    /// By the newest version that the vault has of the key.
    pub(super) async fn wrap(
        &self,
        tenant: Uuid,
        version: i32,
        bytes: &[u8; 32],
    ) -> Result<WrappedDataKey, MasterKeyError> {
        let (plaintext, associated_data) = (Zeroizing::new(STANDARD.encode(bytes)), bound_to(tenant, version));
        let asked = Encrypt { plaintext: &plaintext, associated_data: &associated_data };
        let Encrypted { ciphertext } = self.ask(&self.encrypt, &asked, &self.name).await?;
        let by = version_of(&ciphertext).ok_or_else(|| says(&self.name, "an answer that is no ciphertext"))?;
        let wrapped_by = format!("{}:v{by}", self.name);
        Ok(WrappedDataKey { version, wrapped_by, wrapped: ciphertext.into_bytes() })
    }

    /// What is wrapped by any version that the vault still decrypts with.
    pub(super) async fn unwrap(
        &self,
        tenant: Uuid,
        stored: &WrappedDataKey,
    ) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        let name = &stored.wrapped_by;
        let wrong = || MasterKeyError::Wrong(name.clone());
        let ciphertext = std::str::from_utf8(&stored.wrapped).map_err(|_| wrong())?;
        let by = version_of(ciphertext).ok_or_else(wrong)?;
        if *name != format!("{}:v{by}", self.name) {
            return Err(wrong());
        }
        let asked = Decrypt { ciphertext, associated_data: &bound_to(tenant, stored.version) };
        let Decrypted { plaintext } = self.ask(&self.decrypt, &asked, name).await?;
        let plaintext = Zeroizing::new(plaintext);
        STANDARD.decode(plaintext.as_bytes()).map(Zeroizing::new).map_err(|_| wrong())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        url: &Url,
        body: &impl Serialize,
        name: &str,
    ) -> Result<T, MasterKeyError> {
        if !self.patience.may_ask(Instant::now()) {
            return Err(says(name, "did not answer a moment ago"));
        }
        let answer = self.send(url, body).await;
        let down = answer.as_ref().map_or(true, |(status, _)| status.is_server_error());
        self.patience.asked(down, Instant::now());
        let (status, body) = answer.map_err(|error| says(name, why(&error)))?;
        if status != StatusCode::OK {
            return Err(refused(name, status, &body));
        }
        let answer = serde_json::from_slice::<Answer<T>>(&body);
        answer.map(|answer| answer.data).map_err(|_| says(name, "an answer of another form"))
    }

    async fn send(&self, url: &Url, body: &impl Serialize) -> Result<(StatusCode, Zeroizing<Vec<u8>>), reqwest::Error> {
        let send = || {
            let request = self.client.post(url.clone()).header("x-vault-token", self.token.clone());
            // An agent before it may ask for this header, against requests that a browser was talked into.
            let request = request.header("x-vault-request", "true");
            let namespace = self.namespace.iter().map(|namespace| ("x-vault-namespace", namespace.clone()));
            namespace.fold(request, |request, (name, value)| request.header(name, value)).json(body).send()
        };
        let answer = match send().await {
            // A connection that the vault has just given up; nothing is done twice by asking twice.
            Err(error) if !error.is_timeout() => send().await?,
            answer => answer?,
        };
        Ok((answer.status(), read(answer).await?))
    }
}

impl Patience {
    /// While it does not answer, one caller a second tries, and nobody else waits.
    fn may_ask(&self, now: Instant) -> bool {
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        match *quiet {
            Some(until) if now < until => false,
            Some(_) => {
                *quiet = Some(now + self.timeout + PAUSE);
                true
            }
            None => true,
        }
    }

    fn asked(&self, down: bool, now: Instant) {
        *self.quiet.lock().unwrap_or_else(PoisonError::into_inner) = down.then(|| now + PAUSE);
    }
}

/// Why there is nothing from the vault.
fn says(name: &str, reason: impl Into<String>) -> MasterKeyError {
    MasterKeyError::Unavailable { name: name.to_owned(), reason: reason.into() }
}

/// 400 is what it says of a ciphertext that does not open.
fn refused(name: &str, status: StatusCode, body: &[u8]) -> MasterKeyError {
    let errors = serde_json::from_slice::<Errors>(body).map(|body| body.errors.join("; ")).unwrap_or_default();
    let errors: String = errors.chars().filter(|c| !c.is_control()).collect();
    let errors: String = without_values(&errors).chars().take(MAX_REASON).collect();
    let reason = format!("status {} {errors}", status.as_u16());
    match status {
        StatusCode::BAD_REQUEST => MasterKeyError::Refused { name: name.to_owned(), reason },
        _ => says(name, reason),
    }
}

/// What is as long as a key is left out: what was asked may be quoted, and that holds a data key.
fn without_values(text: &str) -> String {
    let is_value = |c: char| c.is_ascii_alphanumeric() || "+/=-_.%".contains(c);
    let words = text.split_inclusive(|c| !is_value(c));
    let word = |word: &str| match word.trim_end_matches(|c| !is_value(c)) {
        long if long.len() > MAX_WORD => word.replace(long, "…"),
        _ => word.to_owned(),
    };
    words.map(word).collect()
}

fn client(vault: &settings::Vault) -> Result<ClientBuilder, MasterKeyError> {
    let builder = Client::builder()
        // The token is for that address and no other.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(vault.timeout)
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
    let Some(path) = &vault.authorities else { return Ok(builder) };
    let no = |why: &str| MasterKeyError::Settings(format!("{} {why}", path.display()));
    let pem = std::fs::read(path).map_err(|error| no(&format!("cannot be read: {error}")))?;
    let roots = Certificate::from_pem_bundle(&pem).ok().filter(|roots| !roots.is_empty());
    Ok(builder.tls_certs_only(roots.ok_or_else(|| no("holds no certificate of an authority"))?))
}

/// The body, wiped when it is dropped; read no further than the limit.
async fn read(mut answer: Response) -> Result<Zeroizing<Vec<u8>>, reqwest::Error> {
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What a ciphertext is bound to, so that it is no other tenant's data key and none of another version.
fn bound_to(tenant: Uuid, version: i32) -> String {
    STANDARD.encode(place(tenant, version, 0).associated_data())
}

/// 3 of `vault:v3:…`.
fn version_of(ciphertext: &str) -> Option<u32> {
    let (version, rest) = ciphertext.strip_prefix("vault:v")?.split_once(':')?;
    version.parse().ok().filter(|_| !rest.is_empty())
}

fn why(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection, or not to whom the certificate must name"
    } else {
        "the connection was lost"
    }
}

impl fmt::Debug for Transit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crypto_04_a_vault_that_does_not_answer_is_asked_by_one_a_second() {
        let patience = Patience { timeout: Duration::from_secs(3), quiet: Mutex::new(None) };
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        // While it is well, by everybody.
        assert!(patience.may_ask(at(0)) && patience.may_ask(at(0)));
        patience.asked(true, at(0));
        assert!(!patience.may_ask(at(0)) && !patience.may_ask(at(999)));
        assert!(patience.may_ask(at(1_000)), "nobody tries");
        // That one may take as long as it may; if it says nothing at all, there is a next.
        assert!(!patience.may_ask(at(1_000)) && !patience.may_ask(at(4_999)));
        assert!(patience.may_ask(at(5_000)), "nobody tries");
        patience.asked(false, at(5_001));
        assert!(patience.may_ask(at(5_001)) && patience.may_ask(at(5_001)));
    }

    #[test]
    fn crypto_04_what_a_vault_quotes_of_a_request_is_not_told() {
        let key = "Zk3v9QwXb7Lm2RtYgE5hPa8cNs1dJfUo4iKxVzMqTw0=";
        let said = format!(r#"{{"errors": ["invalid plaintext \"{key}\": no such\nkey", "permission denied"]}}"#);
        let error = refused("vault:transit/orders", StatusCode::FORBIDDEN, said.as_bytes()).to_string();
        assert!(error.contains(r#"status 403 invalid plaintext "…": no suchkey; permission denied"#), "{error}");
        let cut = &key[..=MAX_WORD];
        assert_eq!(without_values(cut), "…");
        assert_eq!(without_values(&cut[1..]), &cut[1..]);
    }

    #[test]
    fn crypto_04_the_version_is_read_from_a_ciphertext() {
        assert_eq!(version_of("vault:v3:AAAA"), Some(3));
        for text in ["", "vault:v3", "vault:v3:", "vault:vx:AAAA", "vault:v-1:AAAA", "other:v3:AAAA"] {
            assert_eq!(version_of(text), None, "{text}");
        }
    }
}
