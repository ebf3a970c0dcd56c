//! A stand-in for Vault's Transit engine ([`Vault`]): encrypts and decrypts data keys over HTTP.
//!
//! It implements the endpoints that the service calls (`encrypt`, `decrypt`) with real AES-256-GCM
//! keys, and lets a test rotate the key, forbid old versions, seal the vault, change the token,
//! break responses or delay them. Tests of CRYPTO-04 and CRYPTO-05 use it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use poem::{
    Body, EndpointExt as _, Request, Response, Route, Server, handler,
    listener::TcpAcceptor,
    post,
    web::{Data, Path},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

/// A Transit server on its own port.
pub struct Vault {
    /// The address that it listens on.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// The token that a vault accepts at first.
pub const TOKEN: &str = "hvs.0f3b5f0e7c1d4a52";

struct State {
    token: String,
    /// The keys by version, the first being version 1.
    keys: Vec<[u8; 32]>,
    min_decryption_version: usize,
    /// Whether `encrypt` returns the ciphertext of something else.
    corrupts: bool,
    /// Whether it ignores associated data, as old versions of Vault do.
    ignores_associated_data: bool,
    /// The response to every request, if set.
    response: Option<(StatusCode, Value)>,
    /// The URL that every request is redirected to, if set.
    redirect: Option<String>,
    silent: watch::Sender<bool>,
    /// The number of requests that get a response although it is silent.
    responses_left: usize,
    /// The action and the namespace header of each request.
    requests: Vec<String>,
}

impl Vault {
    /// Starts a server with one key.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            token: TOKEN.to_owned(),
            keys: vec![new_key()],
            min_decryption_version: 1,
            corrupts: false,
            ignores_associated_data: false,
            response: None,
            redirect: None,
            silent: watch::Sender::new(false),
            responses_left: 0,
            requests: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let app = Route::new().at("/v1/transit/:action/:key", post(transit)).data(Arc::clone(&state));
        let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
        tokio::spawn(async move { Server::new_with_acceptor(acceptor).run(app).await.unwrap() });
        Self { address, state }
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a new version of the key.
    pub fn rotate(&self) {
        self.state.lock().unwrap().keys.push(new_key());
    }

    /// Sets `min_decryption_version`: older versions no longer decrypt.
    pub fn forbid_versions_before(&self, version: usize) {
        self.state.lock().unwrap().min_decryption_version = version;
    }

    /// Whether `encrypt` returns ciphertexts that do not decrypt to the plaintext.
    pub fn corrupt_ciphertexts(&self, corrupts: bool) {
        self.state.lock().unwrap().corrupts = corrupts;
    }

    /// Decrypts without comparing the associated data.
    pub fn ignore_associated_data(&self) {
        self.state.lock().unwrap().ignores_associated_data = true;
    }

    /// Accepts only this token.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.state.lock().unwrap().token);
    }

    /// While sealed, responds to every request with 503.
    pub fn seal(&self, sealed: bool) {
        let response = (StatusCode::SERVICE_UNAVAILABLE, json!({ "errors": ["Vault is sealed"] }));
        self.state.lock().unwrap().response = sealed.then_some(response);
    }

    /// Responds to every request with 200 and this body.
    pub fn respond_with(&self, body: Value) {
        self.state.lock().unwrap().response = Some((StatusCode::OK, body));
    }

    /// Redirects every request to this URL.
    pub fn redirect_to(&self, url: &str) {
        self.state.lock().unwrap().redirect = Some(url.to_owned());
    }

    /// While silent, accepts requests and sends no response.
    pub fn silence(&self, silent: bool) {
        self.state.lock().unwrap().silent.send_replace(silent);
    }

    /// Becomes silent after this number of further responses.
    pub fn silence_after(&self, responses: usize) {
        self.state.lock().unwrap().responses_left = responses;
        self.silence(true);
    }

    /// The number of requests since the last [`Self::take_requests`].
    pub fn request_count(&self) -> usize {
        self.state.lock().unwrap().requests.len()
    }

    /// Returns and forgets the requests so far, each as `action namespace`.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn new_key() -> [u8; 32] {
    palisade::crypto::random().unwrap()
}

#[handler]
async fn transit(
    Path((action, key)): Path<(String, String)>,
    request: &Request,
    body: Body,
    state: Data<&Arc<Mutex<State>>>,
) -> Response {
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let body: Value = serde_json::from_slice(&body.into_vec().await.unwrap()).unwrap();
    let mut silent = {
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{action} {}", header("x-vault-namespace").unwrap_or_default()));
        let left = state.responses_left.checked_sub(1);
        state.responses_left = left.unwrap_or_default();
        left.is_none().then(|| state.silent.subscribe())
    };
    if let Some(silent) = &mut silent {
        silent.wait_for(|silent| !silent).await.unwrap();
    }
    let state = state.lock().unwrap();
    if let Some(url) = &state.redirect {
        return Response::builder().status(StatusCode::TEMPORARY_REDIRECT).header("location", url).finish();
    }
    let (status, answer) = if let Some(response) = &state.response {
        response.clone()
    } else if header("x-vault-token").as_deref() != Some(state.token.as_str()) {
        (StatusCode::FORBIDDEN, json!({ "errors": ["permission denied"] }))
    } else if header("x-vault-request").as_deref() != Some("true") {
        // Vault Agent responds so when `require_request_header` is set.
        (StatusCode::PRECONDITION_FAILED, json!({ "errors": ["missing required request header"] }))
    } else if key != palisade::package::name() {
        (StatusCode::BAD_REQUEST, json!({ "errors": ["encryption key not found"] }))
    } else {
        match act(&state, &action, &body) {
            Ok(data) => {
                (StatusCode::OK, json!({ "request_id": "1", "lease_duration": 0, "data": data, "warnings": null }))
            }
            Err(error) => (StatusCode::BAD_REQUEST, json!({ "errors": [error] })),
        }
    };
    Response::builder().status(status).content_type("application/json").body(answer.to_string())
}

fn act(state: &State, action: &str, body: &Value) -> Result<Value, &'static str> {
    let bytes = |name: &str| STANDARD.decode(body[name].as_str().unwrap_or_default()).map_err(|_| "invalid base64");
    let aad = Aad::from(if state.ignores_associated_data { Vec::new() } else { bytes("associated_data")? });
    let cipher = |version: usize| RandomizedNonceKey::new(&AES_256_GCM, &state.keys[version - 1]).unwrap();
    match action {
        "encrypt" => {
            let mut text = bytes("plaintext")?;
            let version = state.keys.len();
            if state.corrupts {
                text = new_key().to_vec();
                let lost = RandomizedNonceKey::new(&AES_256_GCM, &new_key()).unwrap();
                let nonce = lost.seal_in_place_append_tag(aad, &mut text).unwrap();
                let sealed = STANDARD.encode([nonce.as_ref().as_slice(), &text].concat());
                return Ok(json!({ "ciphertext": format!("vault:v{version}:{sealed}"), "key_version": version }));
            }
            let nonce = cipher(version).seal_in_place_append_tag(aad, &mut text).unwrap();
            let sealed = STANDARD.encode([nonce.as_ref().as_slice(), &text].concat());
            Ok(json!({ "ciphertext": format!("vault:v{version}:{sealed}"), "key_version": version }))
        }
        "decrypt" => {
            let text = body["ciphertext"].as_str().and_then(|text| text.strip_prefix("vault:v")?.split_once(':'));
            let (version, sealed) = text.ok_or("invalid ciphertext: no prefix")?;
            let version: usize = version.parse().map_err(|_| "invalid ciphertext: version")?;
            if version < state.min_decryption_version {
                return Err("ciphertext or signature version is disallowed by policy (too old)");
            }
            if version > state.keys.len() {
                return Err("invalid ciphertext: version is too new");
            }
            let sealed = STANDARD.decode(sealed).map_err(|_| "invalid ciphertext: could not decode base64")?;
            let (nonce, text) = sealed.split_at_checked(12).ok_or("invalid ciphertext: too short")?;
            let mut text = text.to_vec();
            let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
            let opened = cipher(version).open_in_place(nonce, aad, &mut text);
            let plain = opened.map_err(|_| "cipher: message authentication failed")?;
            Ok(json!({ "plaintext": STANDARD.encode(plain) }))
        }
        _ => Err("unsupported path"),
    }
}
