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

/// A server that speaks as much of the Transit engine's API as is needed here, with keys of its own: to encrypt, to
/// decrypt, to rotate, to forbid old versions, to be sealed.
pub struct Vault {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

pub const TOKEN: &str = "hvs.0f3b5f0e7c1d4a52";

struct State {
    token: String,
    /// By version, from 1.
    keys: Vec<[u8; 32]>,
    min_decryption_version: usize,
    /// Whether what it gives for a plain text is another's ciphertext.
    loses: bool,
    /// Whether it is as old as to know no associated data.
    unbound: bool,
    /// What it answers instead.
    instead: Option<(StatusCode, Value)>,
    elsewhere: Option<String>,
    silent: watch::Sender<bool>,
    /// How many it answers nevertheless.
    answers: usize,
    /// The path and the headers of each call.
    asked: Vec<String>,
}

impl Vault {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            token: TOKEN.to_owned(),
            keys: vec![new_key()],
            min_decryption_version: 1,
            loses: false,
            unbound: false,
            instead: None,
            elsewhere: None,
            silent: watch::Sender::new(false),
            answers: 0,
            asked: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let app = Route::new().at("/v1/transit/:action/:key", post(transit)).data(Arc::clone(&state));
        let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
        tokio::spawn(async move { Server::new_with_acceptor(acceptor).run(app).await.unwrap() });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A new version of the key.
    pub fn rotate(&self) {
        self.state.lock().unwrap().keys.push(new_key());
    }

    /// Versions before this one are of no use any more.
    pub fn forbid_before(&self, version: usize) {
        self.state.lock().unwrap().min_decryption_version = version;
    }

    pub fn lose_what_is_wrapped(&self, loses: bool) {
        self.state.lock().unwrap().loses = loses;
    }

    pub fn ignore_associated_data(&self) {
        self.state.lock().unwrap().unbound = true;
    }

    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.state.lock().unwrap().token);
    }

    /// Whether it is sealed, and so does nothing.
    pub fn seal(&self, sealed: bool) {
        let says = (StatusCode::SERVICE_UNAVAILABLE, json!({ "errors": ["Vault is sealed"] }));
        self.state.lock().unwrap().instead = sealed.then_some(says);
    }

    pub fn say(&self, answer: Value) {
        self.state.lock().unwrap().instead = Some((StatusCode::OK, answer));
    }

    pub fn redirect_to(&self, url: &str) {
        self.state.lock().unwrap().elsewhere = Some(url.to_owned());
    }

    /// Whether it takes what it is asked, and says nothing.
    pub fn silence(&self, silent: bool) {
        self.state.lock().unwrap().silent.send_replace(silent);
    }

    /// The same, once it has given so many answers.
    pub fn silence_after(&self, answers: usize) {
        self.state.lock().unwrap().answers = answers;
        self.silence(true);
    }

    /// How often.
    pub fn asked(&self) -> usize {
        self.state.lock().unwrap().asked.len()
    }

    /// What it was asked since it was last asked for this.
    pub fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

fn new_key() -> [u8; 32] {
    service::crypto::random().unwrap()
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
    let mut speaks = {
        let mut state = state.lock().unwrap();
        state.asked.push(format!("{action} {}", header("x-vault-namespace").unwrap_or_default()));
        let left = state.answers.checked_sub(1);
        state.answers = left.unwrap_or_default();
        left.is_none().then(|| state.silent.subscribe())
    };
    if let Some(speaks) = &mut speaks {
        speaks.wait_for(|silent| !silent).await.unwrap();
    }
    let state = state.lock().unwrap();
    if let Some(elsewhere) = &state.elsewhere {
        return Response::builder().status(StatusCode::TEMPORARY_REDIRECT).header("location", elsewhere).finish();
    }
    let (status, answer) = if let Some(instead) = &state.instead {
        instead.clone()
    } else if header("x-vault-token").as_deref() != Some(state.token.as_str()) {
        (StatusCode::FORBIDDEN, json!({ "errors": ["permission denied"] }))
    } else if header("x-vault-request").as_deref() != Some("true") {
        // As an agent says that is told to require it.
        (StatusCode::PRECONDITION_FAILED, json!({ "errors": ["missing required request header"] }))
    } else if key != env!("CARGO_PKG_NAME") {
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
    let aad = Aad::from(if state.unbound { Vec::new() } else { bytes("associated_data")? });
    let cipher = |version: usize| RandomizedNonceKey::new(&AES_256_GCM, &state.keys[version - 1]).unwrap();
    match action {
        "encrypt" => {
            let (mut text, version) = (bytes("plaintext")?, state.keys.len());
            if state.loses {
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
