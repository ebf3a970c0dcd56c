//! Who is calling: credential → [`Principal`].
//!
//! [`credential`] takes the one credential out of a request.
//!
//! The way of a token (RFC 9068): [`issuers`] finds whose it is; [`cache`] knows it, or [`claims`] reads it and
//! [`verify`] checks it against a key from [`keys`], which [`discovery`] found and keeps fresh.
//!
//! The way of an API key: [`key_text`] reads it; [`api_keys`] knows it, or checks it against the hash that is stored,
//! as [`hashing`] lets it, on the threads of [`workers`].
//!
//! On the internal listener a client certificate is a credential too: [`certificate`] says whose.
//!
//! Whatever is found then passes [`revocation`], and failures are counted by [`penalties`].

mod api_keys;
mod cache;
mod certificate;
mod claims;
mod credential;
mod discovery;
mod hashing;
mod issuers;
mod key_text;
mod keys;
mod penalties;
mod principal;
mod refused;
mod revocation;
mod verify;
mod workers;

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use http::HeaderMap;
use secrecy::SecretString;
use thiserror::Error;
use tokio::task::JoinSet;

pub use certificate::{Peer, PeerCertificate};
pub(crate) use key_text::api_key_id;
pub(crate) use principal::{API_KEY_SUBJECT, SERVICE_SUBJECT, after_kind};
pub use principal::{CallerKind, Principal};
pub use refused::Refused;

use crate::{
    authz::internal::ServiceRight,
    crypto::RandomError,
    domain::{ApiKeyId, Clock, TenantId},
    settings::{Service, Settings},
    store::{Credentials, StoreError},
};
use api_keys::ApiKeys;
use certificate::Services;
use credential::Credential;
use issuers::Issuers;
use penalties::{Penalties, Verdict};
use revocation::Revocations;

/// Where a call comes from: an IPv4 address, or the /64 of an IPv6 one. What failures are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(pub IpAddr);

/// What a request shows of who is calling.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'r> {
    /// Its headers.
    pub headers: &'r HeaderMap,
    /// Its query, in which no credential may be.
    pub query: &'r str,
    /// The other end of its connection.
    pub peer: &'r Peer,
}

impl Shown<'_> {
    /// What kind of credential it shows, as metrics tell them apart.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.headers.contains_key(http::header::AUTHORIZATION) {
            "token"
        } else if self.headers.contains_key(credential::API_KEY) {
            "api_key"
        } else if self.peer.certificate.is_some() {
            "certificate"
        } else {
            "none"
        }
    }
}

/// Why a call could not be authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthnError {
    /// No credential was presented.
    #[error("no credential")]
    Missing,
    /// What was presented is not one acceptable credential. Why is for logs, never for the caller.
    #[error("credential refused: {reason}")]
    Refused {
        /// Why.
        reason: Refused,
        /// Which API key was presented, if it was one.
        key: Option<ApiKeyId>,
        /// How long the answer is to be held back, after many failures.
        delay: Duration,
    },
    /// Too many failures came from the same source.
    #[error("shut out for {seconds} s")]
    Penalised {
        /// For how long.
        seconds: i64,
        /// What it was refused for besides, if it was looked at.
        refused: Option<(Refused, Option<ApiKeyId>)>,
    },
    /// Something that is needed to decide is missing: fail closed.
    #[error("cannot authenticate without {0}")]
    Unavailable(&'static str),
}

impl AuthnError {
    /// A refusal that is given at once.
    fn refused(reason: Refused, key: Option<ApiKeyId>) -> Self {
        Self::Refused { reason, key, delay: Duration::ZERO }
    }
}

impl From<Refused> for AuthnError {
    fn from(reason: Refused) -> Self {
        Self::refused(reason, None)
    }
}

/// Why there is no authenticator.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The HTTP client for the issuers cannot be made.
    #[error("cannot set up the HTTP client")]
    HttpClient(#[from] reqwest::Error),
    /// Nothing could be made at random.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// There is no thread left for hashing.
    #[error("cannot start the threads that hash")]
    Threads(#[from] std::io::Error),
}

/// Verifies credentials. One per server.
#[derive(Debug)]
pub struct Authenticator {
    issuers: Issuers,
    api_keys: Arc<ApiKeys>,
    revocations: Arc<Revocations>,
    penalties: Penalties,
    services: Services,
    clock: Clock,
    /// With a secret of this process: nobody can choose a subject that gets another's number.
    numbers: RandomState,
}

impl Authenticator {
    /// An authenticator that knows neither the issuers' keys nor what was revoked yet.
    pub fn new(settings: &Settings, store: &Credentials, clock: &Clock) -> Result<Self, SetupError> {
        Ok(Self {
            issuers: Issuers::new(&settings.oidc, settings.profile, store.clone(), clock)?,
            api_keys: Arc::new(ApiKeys::new(settings, store.clone(), clock.clone())?),
            revocations: Revocations::new(store.clone(), settings.revocation, clock.clone()),
            penalties: Penalties::new(settings.penalty, clock.clone()),
            services: Services::new(settings.internal.clone().map(|internal| internal.services).unwrap_or_default()),
            clock: clock.clone(),
            numbers: RandomState::new(),
        })
    }

    /// Keeps what it knows fresh, until the tasks are dropped.
    #[must_use]
    pub fn keep_fresh(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        self.issuers.keep_fresh(&mut tasks);
        tasks.spawn(Arc::clone(&self.revocations).follow());
        tasks.spawn(Arc::clone(&self.api_keys).note_uses());
        tasks
    }

    /// Notes what it has not noted yet, before the service ends.
    pub async fn finish(&self) {
        self.api_keys.flush_uses().await;
    }

    /// Whether anybody could be let in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.issuers.is_ready() && !self.revocations.is_lost()
    }

    /// The text of a new API key, which nobody will see again, and the hash of its secret to store. What its maker may do
    /// is noted first, once more: a database that took over may have lost it, and a key without it opens nothing.
    pub async fn issue_key(&self, maker: &Principal, id: ApiKeyId) -> Result<(SecretString, String), AuthnError> {
        self.issuers.note_roles(maker).await?;
        self.api_keys.issue(maker.tenant(), id).await
    }

    /// Reads all revocations. To be done once before the first request.
    pub async fn learn_revocations(&self) -> Result<(), StoreError> {
        self.revocations.look(None).await
    }

    /// Reads the API keys of a tenant again from here on. The other replicas are notified by the
    /// database.
    pub fn keys_changed(&self, tenant: TenantId) {
        self.revocations.keys_changed(tenant);
    }

    /// Whether somebody who was let in would be still: asked by what goes on for long.
    #[must_use]
    pub fn still_accepts(&self, principal: &Principal) -> bool {
        self.revocations.check(principal).is_ok()
    }

    /// A number for whose the credential is, if it was accepted lately: a token that would be now, a key that was
    /// right when it was checked last, or a certificate that names a service. Nothing is verified for it, so it opens nothing.
    #[must_use]
    pub fn recognise(&self, shown: Shown<'_>) -> Option<u64> {
        match credential::of(shown.headers, shown.query).ok()? {
            None => {
                let (_, caller) = shown.peer.internal.then(|| self.named(shown.peer).ok())??;
                Some(self.number(caller.tenant, &caller.subject))
            }
            Some(Credential::Token(token)) => {
                let principal = self.issuers.remembered(token)?;
                self.revocations.check(&principal).ok()?;
                // Whoever stole it must not use up its holder's.
                shown.peer.may_show(principal.bound_to.as_ref(), self.clock.timestamp()).ok()?;
                Some(self.number(principal.tenant, &principal.subject))
            }
            Some(Credential::ApiKey(text)) => {
                let (tenant, subject) = self.api_keys.proven(text)?;
                Some(self.number(tenant, &subject))
            }
        }
    }

    fn number(&self, tenant: TenantId, subject: &str) -> u64 {
        self.numbers.hash_one((tenant, subject))
    }

    /// The principal behind a request's credential. After many failures a refusal carries a delay, up to a second.
    pub async fn authenticate(&self, shown: Shown<'_>, source: Source) -> Result<Arc<Principal>, AuthnError> {
        let outcome = self.identify(shown, source).await;
        let Err(AuthnError::Refused { reason, key, .. }) = outcome else { return outcome };
        if !reason.is_suspicious(key) {
            return outcome;
        }
        let verdict = match key {
            Some(key) => self.penalties.key_failed(source, key),
            None => self.penalties.token_failed(source),
        };
        match verdict {
            Verdict::ShutOut(seconds) => Err(AuthnError::Penalised { seconds, refused: Some((reason, key)) }),
            Verdict::Delay(delay) => Err(AuthnError::Refused { reason, key, delay }),
        }
    }

    async fn identify(&self, shown: Shown<'_>, source: Source) -> Result<Arc<Principal>, AuthnError> {
        let credential = credential::of(shown.headers, shown.query)?;
        // To the internal listener nobody comes who is not known, or is no longer, whatever else they show.
        let service = if shown.peer.internal { Some(self.named(shown.peer)?) } else { None };
        if let Some((_, caller)) = &service {
            self.revocations.check(caller)?;
        }
        let principal = match (credential, service) {
            (Some(Credential::Token(token)), _) => {
                self.issuers.principal_of(token, shown.peer, &self.revocations).await?
            }
            (Some(Credential::ApiKey(text)), _) => {
                // Which has looked for revocations, and is bound to nothing.
                return self.api_keys.principal_of(text, source, &self.revocations, &self.penalties).await;
            }
            (None, Some((service, caller))) if service.tenant.is_some() => return Ok(Arc::new(caller)),
            (None, Some(_)) => return Err(Refused::Tenant.into()),
            (None, None) => return Err(AuthnError::Missing),
        };
        shown.peer.may_show(principal.bound_to.as_ref(), self.clock.timestamp())?;
        self.revocations.check(&principal)?;
        Ok(principal)
    }

    /// The service that a certificate names, and it as a caller. Without a tenant it is nobody's, and calls no operation
    /// of the API.
    fn named<'s>(&'s self, peer: &'s Peer) -> Result<(&'s Service, Principal), Refused> {
        let (service, certificate) = self.services.named(peer, self.clock.timestamp())?;
        let tenant = service.tenant.unwrap_or(TenantId::from_uuid(uuid::Uuid::nil()));
        Ok((service, certificate::principal(service, certificate, tenant)))
    }

    /// The service that a certificate names, for the operations that only the internal listener has, and whether it was
    /// given this right. By what is known of revocations, however old: who watches the service must see it when
    /// the database is away.
    pub fn service(&self, shown: Shown<'_>, right: ServiceRight) -> Result<(String, bool), AuthnError> {
        if !shown.peer.internal {
            return Err(AuthnError::Missing);
        }
        // Another credential says nothing here, and two could be read in two ways.
        if credential::of(shown.headers, shown.query)?.is_some() {
            return Err(Refused::TwoCredentials.into());
        }
        let (service, caller) = self.named(shown.peer)?;
        if self.revocations.names_subject(&caller) {
            return Err(Refused::Revoked.into());
        }
        Ok((caller.subject, service.rights.contains(&right)))
    }
}
