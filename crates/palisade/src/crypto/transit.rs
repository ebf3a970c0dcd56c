//! Client of a vault's Transit engine: master keys that never leave the vault (CRYPTO-04, FAIL-01).
//!
//! In: data keys to wrap and to unwrap, from [`super::MasterKeys`]. The vault, Vault 1.13 or newer
//! or `OpenBao`, authenticates tenant and data key version as associated data. While it is down, a
//! circuit breaker lets one request per second through and fails all others at once.
//!
//! <https://developer.hashicorp.com/vault/api-docs/secret/transit>

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Certificate, Client, ClientBuilder, Response, redirect};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{MasterKeyError, VaultSettings, WrappedDataKey, master_keyset::data_key_context};

/// Limit for a response body, in bytes.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Limit for an error message of the vault in our errors, in characters.
const MAX_REASON_CHARS: usize = 200;

/// Limit for a word of that message. A key has 43 characters in base64, a token at least 24.
const MAX_WORD_CHARS: usize = 16;

/// Time between two requests to a vault that is down.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A key of the Transit engine.
pub(super) struct Transit {
    client: Client,
    encrypt_url: Url,
    decrypt_url: Url,
    /// Name of the master key without its version, such as `vault:transit/orders`.
    name: String,
    breaker: CircuitBreaker,
}

/// Limits requests to a vault that is down, so that callers fail at once instead of waiting.
struct CircuitBreaker {
    /// Time limit of a request, and so of a probe.
    timeout: Duration,
    /// Set while the vault is down: no request before that time.
    open_until: Mutex<Option<Instant>>,
}

/// A response has `data` or `errors`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseBody {
    data: Option<HashMap<String, Value>>,
    errors: Option<Vec<String>>,
}

impl Transit {
    /// Builds the client and reads the file of CA certificates. Sends no request.
    pub(super) fn new(vault: &VaultSettings) -> Result<Self, MasterKeyError> {
        let invalid = |what: &str| MasterKeyError::Settings(what.to_owned());
        let endpoint = |action| {
            let mut url = vault.url.clone();
            let mut path = url.path_segments_mut().ok()?;
            path.pop_if_empty().push("v1").extend(vault.mount.split('/')).push(action).push(&vault.key);
            drop(path);
            Some(url)
        };
        Ok(Self {
            client: client(vault)?.build().map_err(|_| invalid("the TLS configuration is invalid"))?,
            encrypt_url: endpoint("encrypt").ok_or_else(|| invalid("the URL is malformed"))?,
            decrypt_url: endpoint("decrypt").ok_or_else(|| invalid("the URL is malformed"))?,
            name: format!("vault:{}/{}", vault.mount, vault.key),
            breaker: CircuitBreaker { timeout: vault.timeout, open_until: Mutex::new(None) },
        })
    }

    /// Whether this is the name of a version of this key.
    pub(super) fn has(&self, name: &str) -> bool {
        let version = name.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix(":v"));
        version.is_some_and(|version| version.parse::<u32>().is_ok())
    }

    /// Wraps a data key with the newest version of the vault's key.
    pub(super) async fn wrap(
        &self,
        tenant: Uuid,
        version: i32,
        bytes: &[u8; 32],
    ) -> Result<WrappedDataKey, MasterKeyError> {
        let plaintext = Zeroizing::new(STANDARD.encode(bytes));
        let associated_data = associated_data(tenant, version);
        let request = HashMap::from([("plaintext", plaintext.as_str()), ("associated_data", &associated_data)]);
        let ciphertext = self.post(&self.encrypt_url, &request, "ciphertext", &self.name).await?;
        let master =
            version_of(&ciphertext).ok_or_else(|| unavailable(&self.name, "the response holds no ciphertext"))?;
        let wrapped_by = format!("{}:v{master}", self.name);
        Ok(WrappedDataKey { version, wrapped_by, wrapped: ciphertext.as_bytes().to_vec() })
    }

    /// Unwraps a data key. The vault decrypts with every version from `min_decryption_version` on.
    pub(super) async fn unwrap(
        &self,
        tenant: Uuid,
        stored: &WrappedDataKey,
    ) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        let name = &stored.wrapped_by;
        let cannot_unwrap = || MasterKeyError::CannotUnwrap(name.clone());
        let ciphertext = std::str::from_utf8(&stored.wrapped).map_err(|_| cannot_unwrap())?;
        let master = version_of(ciphertext).ok_or_else(cannot_unwrap)?;
        if *name != format!("{}:v{master}", self.name) {
            return Err(cannot_unwrap());
        }
        let associated_data = associated_data(tenant, stored.version);
        let request = HashMap::from([("ciphertext", ciphertext), ("associated_data", &associated_data)]);
        let plaintext = self.post(&self.decrypt_url, &request, "plaintext", name).await?;
        STANDARD.decode(plaintext.as_bytes()).map(Zeroizing::new).map_err(|_| cannot_unwrap())
    }

    /// Sends a request, unless the circuit breaker is open, and returns a field of the response.
    /// `name` is the master key for errors.
    async fn post(
        &self,
        url: &Url,
        request: &HashMap<&str, &str>,
        field: &str,
        name: &str,
    ) -> Result<Zeroizing<String>, MasterKeyError> {
        if !self.breaker.allows_request(Instant::now()) {
            return Err(unavailable(name, "it did not respond a moment ago"));
        }
        let response = self.send(url, request).await;
        let is_down = response.as_ref().map_or(true, |(status, _)| status.is_server_error());
        self.breaker.record(is_down, Instant::now());
        let (status, body) = response.map_err(|error| unavailable(name, describe(&error)))?;
        if status != StatusCode::OK {
            return Err(error_response(name, status, &body));
        }
        let body: ResponseBody = serde_json::from_slice(&body).unwrap_or_default();
        match body.data.unwrap_or_default().remove(field) {
            Some(Value::String(text)) => Ok(Zeroizing::new(text)),
            _ => Err(unavailable(name, "the response body is not as expected")),
        }
    }

    async fn send(
        &self,
        url: &Url,
        request: &HashMap<&str, &str>,
    ) -> Result<(StatusCode, Zeroizing<Vec<u8>>), reqwest::Error> {
        let send = || self.client.post(url.clone()).json(request).send();
        let response = match send().await {
            // The vault may just have closed an idle connection. Neither operation has side
            // effects.
            Err(error) if !error.is_timeout() => send().await?,
            response => response?,
        };
        Ok((response.status(), read_body(response).await?))
    }
}

impl CircuitBreaker {
    /// Whether a request may be sent. While the vault is down, one per interval may, as a probe.
    fn allows_request(&self, now: Instant) -> bool {
        let mut open_until = self.open_until.lock().unwrap_or_else(PoisonError::into_inner);
        match *open_until {
            Some(until) if now < until => false,
            Some(_) => {
                *open_until = Some(now + self.timeout + RETRY_INTERVAL);
                true
            }
            None => true,
        }
    }

    /// Opens the breaker for one interval if the vault is down, and closes it otherwise.
    fn record(&self, is_down: bool, now: Instant) {
        let open_until = is_down.then(|| now + RETRY_INTERVAL);
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = open_until;
    }
}

fn unavailable(name: &str, reason: impl Into<String>) -> MasterKeyError {
    MasterKeyError::Unavailable { name: name.to_owned(), reason: reason.into() }
}

/// The error for a response other than 200. Vault answers 400 if a ciphertext does not decrypt.
fn error_response(name: &str, status: StatusCode, body: &[u8]) -> MasterKeyError {
    let body: ResponseBody = serde_json::from_slice(body).unwrap_or_default();
    let errors: String = body.errors.unwrap_or_default().join("; ").chars().filter(|c| !c.is_control()).collect();
    let errors: String = redact(&errors).chars().take(MAX_REASON_CHARS).collect();
    let reason = format!("status {} {errors}", status.as_u16());
    match status {
        StatusCode::BAD_REQUEST => MasterKeyError::Refused { name: name.to_owned(), reason },
        _ => unavailable(name, reason),
    }
}

/// Replaces long words by `…`: the message may quote the request, which holds a data key.
fn redact(text: &str) -> String {
    let is_word_char = |c: char| c.is_ascii_alphanumeric() || "+/=-_.%".contains(c);
    let words = text.split_inclusive(|c| !is_word_char(c));
    let redact_word = |word: &str| match word.trim_end_matches(|c| !is_word_char(c)) {
        long if long.len() > MAX_WORD_CHARS => word.replace(long, "…"),
        _ => word.to_owned(),
    };
    words.map(redact_word).collect()
}

fn client(vault: &VaultSettings) -> Result<ClientBuilder, MasterKeyError> {
    let invalid = |what: &str| MasterKeyError::Settings(what.to_owned());
    let mut token =
        HeaderValue::from_str(vault.token.expose_secret()).map_err(|_| invalid("the token is malformed"))?;
    token.set_sensitive(true);
    // A vault agent in between may require `x-vault-request`, as protection against SSRF.
    let mut headers = HeaderMap::new();
    headers.insert("x-vault-token", token);
    headers.insert("x-vault-request", HeaderValue::from_static("true"));
    if let Some(namespace) = &vault.namespace {
        headers.insert("x-vault-namespace", namespace.parse().map_err(|_| invalid("the namespace is malformed"))?);
    }
    let builder = Client::builder()
        .default_headers(headers)
        // A redirect would send the token to another address.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(vault.timeout)
        .user_agent(crate::package::user_agent());
    let Some(path) = &vault.authorities else { return Ok(builder) };
    let invalid = |what: &str| MasterKeyError::Settings(format!("{} {what}", path.display()));
    let pem = std::fs::read(path).map_err(|error| invalid(&format!("cannot be read: {error}")))?;
    let roots = Certificate::from_pem_bundle(&pem).ok().filter(|roots| !roots.is_empty());
    Ok(builder.tls_certs_only(roots.ok_or_else(|| invalid("holds no CA certificate"))?))
}

/// Reads the body up to the limit. It may hold a data key, so it is wiped from memory when dropped.
async fn read_body(mut response: Response) -> Result<Zeroizing<Vec<u8>>, reqwest::Error> {
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_RESPONSE_BYTES));
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The associated data of a wrapped data key. The vault's key version is part of the ciphertext.
fn associated_data(tenant: Uuid, version: i32) -> String {
    STANDARD.encode(data_key_context(tenant, version, 0).associated_data())
}

/// Parses the key version of a ciphertext: 3 of `vault:v3:…`.
fn version_of(ciphertext: &str) -> Option<u32> {
    let (version, rest) = ciphertext.strip_prefix("vault:v")?.split_once(':')?;
    version.parse().ok().filter(|_| !rest.is_empty())
}

fn describe(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "the request timed out"
    } else if error.is_connect() {
        "it cannot be reached, or its certificate is invalid"
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
    fn crypto_04_unavailable_vault_gets_one_request_per_second() {
        let breaker = CircuitBreaker { timeout: Duration::from_secs(3), open_until: Mutex::new(None) };
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        // No limit while the vault is up.
        assert!(breaker.allows_request(at(0)) && breaker.allows_request(at(0)));
        breaker.record(true, at(0));
        assert!(!breaker.allows_request(at(0)) && !breaker.allows_request(at(999)));
        assert!(breaker.allows_request(at(1_000)), "no probe");
        // The next probe waits for the result of this one, or for its timeout and one interval.
        assert!(!breaker.allows_request(at(1_000)) && !breaker.allows_request(at(4_999)));
        assert!(breaker.allows_request(at(5_000)), "no probe");
        breaker.record(false, at(5_001));
        assert!(breaker.allows_request(at(5_001)) && breaker.allows_request(at(5_001)));
    }

    #[test]
    fn crypto_04_vault_errors_do_not_quote_keys() {
        let key = "Zk3v9QwXb7Lm2RtYgE5hPa8cNs1dJfUo4iKxVzMqTw0=";
        let body = format!(r#"{{"errors": ["invalid plaintext \"{key}\": no such\nkey", "permission denied"]}}"#);
        let error = error_response("vault:transit/orders", StatusCode::FORBIDDEN, body.as_bytes()).to_string();
        assert!(error.contains(r#"status 403 invalid plaintext "…": no suchkey; permission denied"#), "{error}");
        let prefix = &key[..=MAX_WORD_CHARS];
        assert_eq!(redact(prefix), "…");
        assert_eq!(redact(&prefix[1..]), &prefix[1..]);
    }

    #[test]
    fn crypto_04_key_version_is_parsed_from_ciphertext() {
        assert_eq!(version_of("vault:v3:AAAA"), Some(3));
        for text in ["", "vault:v3", "vault:v3:", "vault:vx:AAAA", "vault:v-1:AAAA", "other:v3:AAAA"] {
            assert_eq!(version_of(text), None, "{text}");
        }
    }
}
