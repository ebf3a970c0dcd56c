//! Refresh of a browser session: one at a time over all replicas (AUTHN-15).
//!
//! One request claims the refresh token in the database and calls the issuer, without a transaction
//! meanwhile; the others wait for its result. Each of them computes the same next handle. A claim ends
//! by itself, in case its replica stops.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::{
    super::{AuthnError, RejectReason, principal::Principal},
    Live, Sessions,
    clients::issuer_name,
    handle::Handle,
    token_endpoint::{self, TokenError, Tokens},
    unavailable,
};
use crate::{db::sessions::StoredSession, telemetry::event};

/// Time for which a replaced cookie still stands for its session, so that requests which were sent
/// before the answer arrived are served. Within it, the new cookie is not replaced again.
pub(super) const WINDOW: TimeDelta = TimeDelta::seconds(10);
/// Longest time that a request waits for the refresh of another one.
const MAX_WAIT: Duration = Duration::from_secs(6);
/// Interval at which a waiting request reads the session.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What a refresh does besides renewing the access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    /// Replaces the cookie: the browser asked for it.
    Replace,
    /// Keeps the cookie: an operation needs a new access token.
    Keep,
}

impl Sessions {
    /// Renews the access token of a session, and its handle if that is asked for.
    pub(super) async fn renew(self: &Arc<Self>, live: Live, rotation: Rotation) -> Result<Live, AuthnError> {
        let Live { handle, mut session } = live;
        let (tenant, id) = (handle.tenant, handle.session);
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            if session.refresh_token.is_none() {
                return Ok(Live { handle, session });
            }
            if let Some(claim) = self.parts.store.claim_refresh(&session).await.map_err(unavailable)? {
                let sessions = Arc::clone(self);
                let renewal = async move { sessions.renew_claimed(handle, session, claim, rotation).await };
                // A task: a browser that disconnects must not lose the issuer's next refresh token.
                let live: Live = tokio::spawn(renewal).await.map_err(|_| AuthnError::Unavailable("refresh"))??;
                if rotation == Rotation::Replace {
                    let Live { session, .. } = &live;
                    event::session_renewed(&session.subject, &session.tenant_id.to_string(), &session.id.to_string());
                }
                return Ok(live);
            }
            sleep(POLL_INTERVAL).await;
            let before = session;
            session =
                self.parts.store.session(tenant, id).await.map_err(unavailable)?.ok_or(RejectReason::SessionEnded)?;
            if session.ended_at.is_some() {
                return Err(RejectReason::SessionEnded.into());
            }
            if session.generation != before.generation {
                // Another request refreshed it.
                return self.follow(&handle, session);
            }
            if session.access_expires_at != before.access_expires_at && rotation == Rotation::Keep {
                return Ok(Live { handle, session });
            }
            let has_failed = session.claimed_until.is_none() && session.access_expires_at == before.access_expires_at;
            if has_failed || Instant::now() > deadline {
                return Err(AuthnError::Unavailable("issuer"));
            }
        }
    }

    /// The session with the handle that replaced this one.
    pub(super) fn follow(&self, handle: &Handle, session: StoredSession) -> Result<Live, AuthnError> {
        let successor = handle.successor(&self.key);
        let is_newest = successor.hash().as_slice() == session.handle_hash;
        if is_newest { Ok(Live { handle: successor, session }) } else { Err(RejectReason::SessionEnded.into()) }
    }

    /// Calls the issuer for the request that has the claim, and ends the claim.
    async fn renew_claimed(
        &self,
        handle: Handle,
        session: StoredSession,
        claim: DateTime<Utc>,
        rotation: Rotation,
    ) -> Result<Live, AuthnError> {
        let outcome = self.call_issuer(&handle, &session).await;
        let key = (session.tenant_id, session.id);
        let (tokens, accepted) = match outcome {
            Ok(answer) => answer,
            Err(error) => {
                if matches!(error, AuthnError::Rejected { .. }) {
                    self.end(handle.tenant, handle.session, "issuer").await;
                } else {
                    // The session stays as it is. If the claim stays too, it ends by itself.
                    let _ = self.parts.store.finish_refresh(key, claim, None).await;
                }
                return Err(error);
            }
        };
        let (handle, session) = self.refreshed(handle, session, tokens, accepted.as_ref().ok(), rotation)?;
        let is_stored = self.parts.store.finish_refresh(key, claim, Some(&session)).await.map_err(unavailable)?;
        // The refresh token is kept, even if the access token could not be checked.
        accepted?;
        if !is_stored {
            return Err(RejectReason::SessionEnded.into());
        }
        Ok(Live { handle, session })
    }

    /// Redeems the refresh token. The inner result is an error if the new access token cannot be
    /// checked now.
    async fn call_issuer(
        &self,
        handle: &Handle,
        session: &StoredSession,
    ) -> Result<(Tokens, Result<(Arc<Principal>, i64), AuthnError>), AuthnError> {
        let (client, issuer) = self.client_of(issuer_name(session)).ok_or(RejectReason::SessionEnded)?;
        let sealed = session.refresh_token.as_deref().unwrap_or_default();
        let refresh_token = handle.token_key(&self.key).and_then(|key| key.open(sealed));
        let refresh_token = refresh_token.map_err(|_| RejectReason::SessionEnded)?;
        let grant = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.as_str())];
        let tokens = token_endpoint::request(issuer, &client, &grant).await.map_err(|error| match error {
            TokenError::InvalidGrant => AuthnError::from(RejectReason::SessionEnded),
            TokenError::Unavailable => AuthnError::Unavailable("issuer"),
        })?;
        match self.accept_access_token(issuer, &tokens.access_token).await {
            Ok((principal, _)) if principal.subject != session.subject || principal.tenant != handle.tenant => {
                Err(RejectReason::Claims("sub").into())
            }
            // The keys of the issuer, as fetched last, may lack its newest one.
            Err(AuthnError::Rejected { reason: RejectReason::UnknownKey, .. }) => {
                Ok((tokens, Err(AuthnError::Unavailable("issuer_keys"))))
            }
            Err(error @ AuthnError::Rejected { .. }) => Err(error),
            accepted => Ok((tokens, accepted)),
        }
    }

    /// The session with new tokens. Without an accepted access token, only the refresh token is new.
    fn refreshed(
        &self,
        handle: Handle,
        mut session: StoredSession,
        tokens: Tokens,
        accepted: Option<&(Arc<Principal>, i64)>,
        rotation: Rotation,
    ) -> Result<(Handle, StoredSession), AuthnError> {
        let failed = |_| AuthnError::Unavailable("sealing");
        let sealed = session.refresh_token.as_deref().unwrap_or_default();
        let refresh_token = match tokens.refresh_token {
            Some(token) => Zeroizing::new(token),
            // The issuer does not rotate it.
            None => handle.token_key(&self.key).and_then(|key| key.open(sealed)).map_err(failed)?,
        };
        let now = self.parts.clock.now();
        let newest = match (accepted, rotation) {
            (Some(_), Rotation::Replace) => {
                session.generation += 1;
                session.rotated_at = now;
                handle.successor(&self.key)
            }
            _ => handle,
        };
        session.handle_hash = newest.hash().to_vec();
        session.refresh_token =
            Some(newest.token_key(&self.key).and_then(|key| key.seal(&refresh_token)).map_err(failed)?);
        if let Some((principal, access_expires_at)) = accepted {
            session.client.clone_from(&principal.client);
            session.roles = principal.roles.iter().map(|role| role.as_str().to_owned()).collect();
            session.scopes = principal.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
            session.token_id.clone_from(&principal.token_id);
            // A refresh is no sign-in: what its token does not say stays as it was.
            let (auth_time, acr) = principal.sign_in.of_session(None);
            let auth_time = auth_time.and_then(|time| DateTime::from_timestamp(time, 0));
            session.auth_time = auth_time.or(session.auth_time);
            session.acr = acr.or_else(|| session.acr.take());
            session.access_expires_at = DateTime::from_timestamp(*access_expires_at, 0).unwrap_or(now);
        }
        session.claimed_until = None;
        Ok((newest, session))
    }

    /// Whether the handle was replaced a moment ago, or is about to be replaced again too soon.
    pub(super) fn is_recent(&self, session: &StoredSession) -> bool {
        session.generation > 0 && self.parts.clock.now() <= session.rotated_at + WINDOW
    }
}
