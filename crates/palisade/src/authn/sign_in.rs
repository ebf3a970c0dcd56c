//! How and when a person signed in, and which actor uses the token (AUTHN-13).
//!
//! [`super::verify`] reads `auth_time`, `acr` (RFC 9470 section 6) and `act` (RFC 8693 section 4.1)
//! from a token. [`crate::authz`] compares them with the row of a sensitive operation. Programs with
//! a client certificate or client credentials sign in with each token, so nothing is asked of them.

use std::sync::Arc;

use serde_json::Value;

use super::{
    RejectReason,
    claims::Claims,
    principal::{is_reserved, qualify},
};
use crate::{
    model::{is_control_or_invisible, is_joiner_or_selector},
    settings::Issuer,
};

/// Longest recorded client with its actor, in bytes.
const MAX_RECORDED_BYTES: usize = 255;
/// Stands between client and actor in the audit trail.
const ACTOR: &str = " actor:";
/// Tolerated difference between the clocks of issuer and service, in seconds.
const LEEWAY: i64 = 60;

/// The sign-in behind a token, and what its issuer's settings demand of one.
#[derive(Clone, Debug, Default)]
pub(super) struct SignIn {
    /// `auth_time`, in seconds since the epoch.
    at: Option<i64>,
    acr: Option<String>,
    /// Values of `acr` that are strong enough; empty if the strength is not checked.
    strong: Arc<[String]>,
    requires_time: bool,
    actor: Option<String>,
    /// Client and actor, as the audit trail records them.
    recorded_client: Option<String>,
}

/// What a sign-in lacks for a sensitive operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignInFault {
    /// It is too old, or its time is unknown.
    pub age: bool,
    /// Its `acr` is none of those that are strong enough.
    pub strength: bool,
}

impl SignIn {
    /// Reads the claims. Rejects an actor unless the issuer's settings accept actors.
    pub(super) fn from_claims(claims: &Claims, issuer: &Issuer, client: &str) -> Result<Self, RejectReason> {
        let acr = claims.0.get("acr").map(|acr| acr.as_str().ok_or(RejectReason::Claims("acr"))).transpose()?;
        let actor = match claims.0.get("act") {
            None => None,
            Some(_) if !issuer.accept_actors => return Err(RejectReason::Actor),
            Some(act) => Some(actor(act, issuer).ok_or(RejectReason::Claims("act"))?),
        };
        // A client must not look like one with an actor.
        if issuer.accept_actors && client.contains(ACTOR) {
            return Err(RejectReason::Claims("client"));
        }
        let recorded_client = actor.as_ref().map(|actor| format!("{client}{ACTOR}{actor}"));
        if recorded_client.as_ref().is_some_and(|recorded| recorded.len() > MAX_RECORDED_BYTES) {
            return Err(RejectReason::Claims("act"));
        }
        Ok(Self {
            at: claims.time("auth_time", issuer.fractional_times)?.map(|time| time.floor),
            acr: acr.map(str::to_owned),
            strong: issuer.acr_values.clone().into(),
            requires_time: issuer.require_auth_time,
            actor,
            recorded_client,
        })
    }

    /// The sign-in of a browser session, from what [`Self::of_session`] said when it began.
    #[cfg(feature = "sessions")]
    pub(super) fn restore((at, acr): (Option<i64>, Option<String>), issuer: Option<&Issuer>) -> Self {
        Self {
            at,
            acr,
            strong: issuer.map(|issuer| issuer.acr_values.clone()).unwrap_or_default().into(),
            // Of an issuer that left the settings, nothing is known.
            requires_time: issuer.is_none_or(|issuer| issuer.require_auth_time),
            ..Self::default()
        }
    }

    /// What a browser session keeps: `auth_time` and `acr`, of `other` if they are absent here.
    #[cfg(feature = "sessions")]
    pub(super) fn of_session(&self, other: Option<&Self>) -> (Option<i64>, Option<String>) {
        let acr = self.acr.as_ref().or_else(|| other?.acr.as_ref());
        (self.at.or_else(|| other?.at), acr.cloned())
    }

    /// What the sign-in lacks if it may be `max_age` seconds old at `now`. `None`: nothing.
    pub(super) fn fault(&self, max_age: u32, now: i64) -> Option<SignInFault> {
        let is_recent = |at: i64| at <= now.saturating_add(LEEWAY) && now.saturating_sub(at) <= i64::from(max_age);
        let age = !self.at.map_or(!self.requires_time, is_recent);
        let is_strong = |acr: &String| self.strong.contains(acr);
        let strength = !self.strong.is_empty() && !self.acr.as_ref().is_some_and(is_strong);
        (age || strength).then_some(SignInFault { age, strength })
    }

    /// Values of `acr` that are strong enough.
    pub(super) fn strong(&self) -> &[String] {
        &self.strong
    }

    pub(super) fn actor(&self) -> Option<&str> {
        self.actor.as_deref()
    }

    pub(super) fn recorded_client(&self) -> Option<&str> {
        self.recorded_client.as_deref()
    }
}

/// The current actor. Earlier ones, which are nested, decide nothing (RFC 8693 section 4.1).
fn actor(act: &Value, issuer: &Issuer) -> Option<String> {
    let act = act.as_object()?;
    if act.get("iss").is_some_and(|iss| iss != issuer.url.as_str()) {
        return None;
    }
    let name = act.get("sub")?.as_str()?;
    let is_hidden = |c| is_control_or_invisible(c) || is_joiner_or_selector(c);
    (!name.trim().is_empty() && !name.chars().any(is_hidden) && !is_reserved(name))
        .then(|| qualify(issuer.name.as_deref(), name))
}
