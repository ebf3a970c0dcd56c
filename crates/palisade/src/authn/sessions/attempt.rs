//! A sign-in that has begun, and its cookie (AUTHN-14).
//!
//! The cookie has a random secret, the issuer, the path to return to, and what the page asks of the
//! sign-in, under a tag. State, nonce and PKCE verifier are MACs of the secret under the key of the
//! service: this replica or another one computes them again at the callback, and neither browser nor
//! database has the verifier. [`super::login`] makes and takes it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderMap;
use zeroize::Zeroizing;

use super::{
    super::{RejectReason, sign_in::SignIn},
    handle::cookies,
};
use crate::crypto::MacKey;

/// The cookie of a sign-in.
const LOGIN_COOKIE: &str = "__Host-login";
/// Deletes the cookie of a sign-in.
pub(super) const NO_LOGIN: &str = "__Host-login=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax";
/// Time from the start of a sign-in to its callback, in seconds.
pub(super) const LOGIN_SECONDS: i64 = 600;

/// A sign-in that has begun.
pub(super) struct Attempt {
    pub(super) secret: Zeroizing<[u8; 32]>,
    pub(super) expires_at: i64,
    /// `None` for the first issuer.
    pub(super) issuer: Option<String>,
    pub(super) return_to: String,
    /// Longest time since the person authenticated, in seconds (OpenID Connect Core section 3.1.2.1).
    pub(super) max_age: Option<u32>,
    /// Values of `acr`, separated by spaces, one of which the sign-in must have; empty for any.
    pub(super) acr_values: String,
}

impl Attempt {
    /// `<secret>.<end>.<issuer>.<path>.<max_age>.<acr_values>`. Names of issuers have no dot, and other
    /// texts are encoded.
    pub(super) fn text(&self) -> String {
        let parts = [self.secret.as_slice(), self.return_to.as_bytes(), self.acr_values.as_bytes()];
        let [secret, path, acr_values] = parts.map(|part| URL_SAFE_NO_PAD.encode(part));
        let max_age = self.max_age.map(|max_age| max_age.to_string()).unwrap_or_default();
        let issuer = self.issuer.as_deref().unwrap_or_default();
        format!("{secret}.{}.{issuer}.{path}.{max_age}.{acr_values}", self.expires_at)
    }

    pub(super) fn cookie(&self, key: &MacKey) -> String {
        let text = self.text();
        let tag = URL_SAFE_NO_PAD.encode(key.tag("sign-in", text.as_bytes()));
        // Lax, whatever the sessions have: the callback is a navigation from another site.
        format!("{LOGIN_COOKIE}={text}.{tag}; Path=/; Max-Age={LOGIN_SECONDS}; Secure; HttpOnly; SameSite=Lax")
    }

    /// The sign-in of this browser; `None` if there is none, or two.
    pub(super) fn from_headers(headers: &HeaderMap, key: &MacKey, now: i64) -> Option<Self> {
        let mut values = cookies(headers, LOGIN_COOKIE);
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let (text, tag) = value.rsplit_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok().filter(|tag| tag.len() == 32)?;
        if !key.verify_prefix("sign-in", text.as_bytes(), &tag) {
            return None;
        }
        let decode = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        let [secret, expires_at, issuer, return_to, max_age, acr_values] =
            text.split('.').collect::<Vec<_>>().try_into().ok()?;
        let attempt = Self {
            secret: Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).ok()?.try_into().ok()?),
            expires_at: expires_at.parse().ok()?,
            issuer: Some(issuer.to_owned()).filter(|name| !name.is_empty()),
            return_to: decode(return_to)?,
            max_age: if max_age.is_empty() { None } else { Some(max_age.parse().ok()?) },
            acr_values: decode(acr_values)?,
        };
        (now < attempt.expires_at).then_some(attempt)
    }

    /// Checks that the person authenticated as lately and as strongly as the page asked for.
    pub(super) fn check(&self, sign_in: &SignIn, leeway: i64, now: i64) -> Result<(), RejectReason> {
        let (auth_time, acr) = sign_in.of_session(None);
        if let Some(max_age) = self.max_age {
            // The issuer compared with the time at which it was asked.
            let asked_at = self.expires_at - LOGIN_SECONDS;
            let accepted = asked_at - i64::from(max_age) - leeway..=now + leeway;
            if !auth_time.is_some_and(|at| accepted.contains(&at)) {
                return Err(RejectReason::SignIn("auth_time"));
            }
        }
        let mut strong = self.acr_values.split(' ').filter(|value| !value.is_empty());
        if self.acr_values.is_empty() || acr.is_some_and(|acr| strong.any(|value| value == acr)) {
            Ok(())
        } else {
            Err(RejectReason::SignIn("acr"))
        }
    }

    /// One of the values that belong to the sign-in: 43 characters, as PKCE asks for (RFC 7636
    /// section 4.1).
    fn value(&self, key: &MacKey, name: &str) -> String {
        URL_SAFE_NO_PAD.encode(key.tag(name, self.secret.as_slice()))
    }

    pub(super) fn state(&self, key: &MacKey) -> String {
        self.value(key, "sign-in state")
    }

    pub(super) fn nonce(&self, key: &MacKey) -> String {
        self.value(key, "sign-in nonce")
    }

    pub(super) fn verifier(&self, key: &MacKey) -> Zeroizing<String> {
        Zeroizing::new(self.value(key, "sign-in verifier"))
    }
}
