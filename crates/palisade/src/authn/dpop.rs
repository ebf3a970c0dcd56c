//! Access tokens that are bound to a key or a certificate of the client. Home of AUTHN-19.
//!
//! [`super::issuers`] calls [`Bindings::check`] for each request with a token. A token that is bound
//! to a key comes with a DPoP proof (RFC 9449): a JWS that the client makes for this one request,
//! with a time from this service in it. Each proof is accepted once, by one replica.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderMap;
use serde_json::{Map, Value};
use url::Url;

use super::{
    AuthnError, RejectReason, RequestCredentials,
    certificate::Thumbprint,
    claims::{Claims, FORBIDDEN_PARAMETERS, decode_object},
    credential::{Scheme, Token},
    keys::{Key, jws_algorithm},
};
use crate::{
    crypto::{MacKey, sha256},
    db::Credentials,
    model::Clock,
    settings::SignatureAlgorithm,
    telemetry::repeats::coalesced,
};

/// Name of the header with the proof (RFC 9449 section 4.1).
const PROOF: &str = "dpop";
/// Type of a proof (RFC 9449 section 4.2).
const PROOF_TYPE: &str = "dpop+jwt";
/// Signature algorithms of proofs, separated by spaces, as challenges name them.
pub(crate) const PROOF_ALGORITHMS: &str = "ES256 EdDSA Ed25519 PS256 RS256";
/// Largest proof, in bytes: its key is in it.
const MAX_PROOF_BYTES: usize = 4_096;
/// Most members of an object in a proof.
const MAX_MEMBERS: usize = 32;
/// Longest `jti`, in bytes.
const MAX_ID_BYTES: usize = 255;
/// Seconds for which a nonce of this service, and the proofs with it, are accepted.
const NONCE_LIFETIME: i64 = 300;

/// What a token is bound to (RFC 7800).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// The client certificate of the connection (RFC 8705).
    Certificate(Thumbprint),
    /// The key of the request's proof (RFC 9449): its JWK thumbprint (RFC 7638).
    Key(Thumbprint),
}

/// Checks that callers hold what their tokens are bound to.
#[derive(Debug)]
pub(super) struct Bindings {
    /// Where callers reach the service, without a slash at the end.
    base: String,
    /// Tolerated difference between clocks, in seconds.
    leeway: i64,
    nonce_key: MacKey,
    used_proofs: Credentials,
    clock: Clock,
}

impl Binding {
    /// Parses `cnf`, which must name exactly one binding that this service checks.
    pub(super) fn parse(cnf: &Value) -> Result<Self, RejectReason> {
        let mut members = cnf.as_object().into_iter().flatten();
        let (Some((name, value)), None) = (members.next(), members.next()) else { return Err(RejectReason::Binding) };
        let digest = value.as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok());
        match (name.as_str(), digest) {
            ("x5t#S256", Some(digest)) => Ok(Self::Certificate(digest)),
            ("jkt", Some(digest)) => Ok(Self::Key(digest)),
            _ => Err(RejectReason::Binding),
        }
    }
}

impl Bindings {
    /// `public_url` is where callers reach the service; `key` is the same on all replicas.
    pub(super) fn new(public_url: &str, leeway: i64, key: MacKey, used_proofs: Credentials, clock: Clock) -> Self {
        Self { base: public_url.trim_end_matches('/').to_owned(), leeway, nonce_key: key, used_proofs, clock }
    }

    /// Checks the binding of a verified token. A bound token is never a bearer token (RFC 9449
    /// section 7.2).
    pub(super) async fn check(
        &self,
        binding: Option<Binding>,
        token: Token<'_>,
        request: RequestCredentials<'_>,
    ) -> Result<(), AuthnError> {
        match (binding, token.scheme) {
            (None, Scheme::Bearer) => Ok(()),
            (Some(Binding::Certificate(bound)), Scheme::Bearer) => {
                Ok(request.connection.check_certificate(&bound, self.clock.timestamp())?)
            }
            // The public URL is not that of the internal listener.
            (Some(Binding::Key(bound)), Scheme::Dpop) if !request.connection.internal => {
                self.check_proof(&bound, token.text, request).await
            }
            _ => Err(RejectReason::Binding.into()),
        }
    }

    /// Checks a proof as RFC 9449 section 4.3 says, and that it is used for the first time.
    async fn check_proof(
        &self,
        bound: &Thumbprint,
        token: &str,
        request: RequestCredentials<'_>,
    ) -> Result<(), AuthnError> {
        let claims = verified_claims(proof_of(request.headers)?, bound)?;
        self.check_claims(&claims, token, request)?;
        let id = claims.text("jti").filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
        let id = id.ok_or(RejectReason::Proof("jti"))?;
        // From here on, the proof is used.
        let digest = sha256(&[bound.as_slice(), id.as_bytes()].concat());
        let forgotten = self.clock.now() + chrono::TimeDelta::seconds(NONCE_LIFETIME + self.leeway);
        match self.used_proofs.use_once(&digest, forgotten).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(RejectReason::Proof("replayed").into()),
            Err(error) => {
                coalesced!(error, "cannot check whether a proof was used", %error);
                Err(AuthnError::Unavailable("used_proofs"))
            }
        }
    }

    fn check_claims(&self, claims: &Claims, token: &str, request: RequestCredentials<'_>) -> Result<(), RejectReason> {
        if claims.text("htm") != Some(request.method.as_str()) {
            return Err(RejectReason::Proof("htm"));
        }
        if !claims.text("htu").is_some_and(|named| self.is_target(named, request.uri.path())) {
            return Err(RejectReason::Proof("htu"));
        }
        if claims.text("ath") != Some(&URL_SAFE_NO_PAD.encode(sha256(token.as_bytes()))) {
            return Err(RejectReason::Proof("ath"));
        }
        let is_recent = |time: i64| {
            let age = self.clock.timestamp().saturating_sub(time);
            (-self.leeway..=NONCE_LIFETIME).contains(&age)
        };
        let issued_at = claims.time("iat", false).ok().flatten().ok_or(RejectReason::Proof("iat"))?;
        if !is_recent(issued_at.floor) {
            return Err(RejectReason::Proof("iat"));
        }
        let nonce = claims.text("nonce").and_then(|nonce| self.time_of_nonce(nonce));
        if nonce.is_some_and(is_recent) { Ok(()) } else { Err(RejectReason::ProofNonce) }
    }

    /// Whether `htu` is the public URL with this path. Its query and fragment do not count.
    fn is_target(&self, named: &str, path: &str) -> bool {
        let without_query = |mut url: Url| {
            url.set_query(None);
            url.set_fragment(None);
            url
        };
        let target = Url::parse(&format!("{}{path}", self.base));
        Url::parse(named).map(without_query).is_ok_and(|named| target.is_ok_and(|target| target == named))
    }

    /// A nonce for the next proofs of a client: the time, which no client can write (RFC 9449
    /// section 8). No proof that was made in advance has it.
    pub(super) fn new_nonce(&self) -> String {
        let time = self.clock.timestamp().to_be_bytes();
        let tag = self.nonce_key.tag(PROOF_TYPE, &time);
        URL_SAFE_NO_PAD.encode(time.iter().chain(tag.iter().take(16)).copied().collect::<Vec<u8>>())
    }

    fn time_of_nonce(&self, nonce: &str) -> Option<i64> {
        let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
        let (time, tag) = bytes.split_first_chunk::<8>()?;
        self.nonce_key.verify_prefix(PROOF_TYPE, time, tag).then(|| i64::from_be_bytes(*time))
    }
}

/// The one proof of a request.
fn proof_of(headers: &HeaderMap) -> Result<&str, RejectReason> {
    let mut proofs = headers.get_all(PROOF).iter();
    let (Some(proof), None) = (proofs.next(), proofs.next()) else { return Err(RejectReason::Proof("header")) };
    let proof = proof.to_str().ok().filter(|proof| proof.len() <= MAX_PROOF_BYTES);
    proof.ok_or(RejectReason::Proof("header"))
}

/// The claims of a proof that is signed with the key that the token is bound to.
fn verified_claims(proof: &str, bound: &Thumbprint) -> Result<Claims, RejectReason> {
    let malformed = |_| RejectReason::Proof("malformed");
    let (input, signature) = proof.rsplit_once('.').ok_or(RejectReason::Proof("malformed"))?;
    let (header, claims) = input.split_once('.').ok_or(RejectReason::Proof("malformed"))?;
    let header = decode_object(header, MAX_MEMBERS).map_err(malformed)?;
    let claims = Claims(decode_object(claims, MAX_MEMBERS).map_err(malformed)?);
    if header.get("typ") != Some(&Value::from(PROOF_TYPE)) {
        return Err(RejectReason::Proof("typ"));
    }
    // The key of a proof is in its header, that of a token never.
    if FORBIDDEN_PARAMETERS.iter().any(|name| *name != "jwk" && header.contains_key(*name)) {
        return Err(RejectReason::Proof("header"));
    }
    let key = header.get("jwk").and_then(Value::as_object).and_then(Key::of_proof).ok_or(RejectReason::Proof("jwk"))?;
    let algorithm = proof_algorithm(&header).filter(|algorithm| key.is_for(*algorithm));
    let algorithm = algorithm.ok_or(RejectReason::Proof("alg"))?;
    if key.thumbprint() != *bound {
        return Err(RejectReason::Proof("jwk"));
    }
    match jsonwebtoken::crypto::verify(signature, input.as_bytes(), key.decoding(), algorithm) {
        Ok(true) => Ok(claims),
        _ => Err(RejectReason::Proof("signature")),
    }
}

fn proof_algorithm(header: &Map<String, Value>) -> Option<jsonwebtoken::Algorithm> {
    let name = header.get("alg").and_then(Value::as_str)?;
    let is_accepted = PROOF_ALGORITHMS.split(' ').any(|accepted| accepted == name);
    SignatureAlgorithm::find(name).filter(|_| is_accepted).and_then(|algorithm| jws_algorithm(algorithm.as_str()))
}
