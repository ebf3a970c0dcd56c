//! Authentication: verifies a request's credential and makes the [`Principal`].
//!
//! Home of RATE-06; the other files name theirs. `http/guard.rs` calls
//! [`Authenticator::authenticate`] before it reads anything else of a request.
//!
//! - [`credential`] extracts the one credential of a request.
//! - Access token (RFC 9068): [`issuers`] looks in its cache. On a miss, [`claims`] parses the
//!   token, [`verify`] validates it with a key of the issuer's JWKS ([`keys`]), which [`discovery`]
//!   fetches and refreshes, and [`identity`] reads the principal from its claims.
//! - API key: [`api_keys`] looks in its cache, or verifies the secret against the stored hash.
//! - Cookie of a browser session: [`sessions`] reads the session, which has the verified claims.
//! - Client certificate, on the internal listener only: [`services`] finds the service it names.
//!
//! Every principal is then checked against the revocation list ([`revocation`]) and the registry of
//! tenants ([`tenants`]). Failures count towards the lock-out of their source
//! ([`failure_limiter`]); a refused tenant is none.

#[cfg_attr(not(feature = "api_keys"), path = "without_api_keys.rs")]
mod api_keys;
mod certificate;
mod claims;
mod credential;
mod discovery;
mod dpop;
mod error;
mod explain;
mod failure_limiter;
mod identity;
mod issuers;
mod keys;
mod principal;
mod reject_reason;
mod revocation;
mod services;
#[cfg_attr(not(feature = "sessions"), path = "without_sessions.rs")]
mod sessions;
mod sign_in;
mod tenants;
mod verify;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex},
};

use api_keys::ApiKeys;
use credential::Credential;
use dpop::{Binding, Bindings};
use failure_limiter::{FailureLimiter, FailureOutcome};
use issuers::Issuers;
use revocation::Revocations;
use sessions::Sessions;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    db::{Credentials, DbError},
    model::{Clock, Rights, TenantId},
    settings::{CertificateName, Service, Settings},
};

pub(crate) use api_keys::{ENABLED as API_KEYS, subject_of_id as api_key_subject};
pub use certificate::{ClientCertificate, ConnectionInfo};
pub use credential::RequestCredentials;
pub(crate) use dpop::PROOF_ALGORITHMS;
pub use error::{AuthnError, SetupError};
pub(crate) use explain::{check_issuers, explain};
pub(crate) use principal::{API_KEY_SUBJECT, SERVICE_SUBJECT, strip_subject_prefix};
pub use principal::{CallerKind, Principal};
pub use reject_reason::RejectReason;
pub(crate) use sessions::ENABLED as SESSIONS;
#[cfg(feature = "sessions")]
pub(crate) use sessions::{LoginAnswer, LoginRequest, SessionState, SignedIn};
pub use sign_in::SignInFault;
pub use tenants::{TenantRefusal, Tenants};

/// The network that a request comes from: an IPv4 address, or the /64 of an IPv6 address.
/// Failed authentications are counted per source network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceNetwork(pub IpAddr);

/// A caller whose credential this replica accepted recently.
#[derive(Clone, Debug)]
pub struct CachedCaller {
    /// A hash of tenant and subject, by which the edge counts.
    pub hash: u64,
    /// The tenant. A service of the internal listener may have none.
    pub tenant: Option<uuid::Uuid>,
    /// The recorded subject.
    pub subject: String,
}

/// Authenticates requests. Each replica has one.
#[derive(Debug)]
pub struct Authenticator {
    issuers: Arc<Issuers>,
    api_keys: Arc<ApiKeys>,
    sessions: Arc<Sessions>,
    revocations: Arc<Revocations>,
    tenants: Arc<Tenants>,
    failure_limiter: FailureLimiter,
    /// Services of the internal listener, by the names in their certificates.
    services: BTreeMap<CertificateName, Service>,
    /// The certificate that each service used last, by its subject.
    seen_certificates: Mutex<BTreeMap<String, certificate::Thumbprint>>,
    rights: Rights,
    max_token_bytes: usize,
    clock: Clock,
    /// Changes at SIGHUP.
    hangups: watch::Receiver<()>,
    /// Hashes callers with a secret of this process: no client can choose a subject that collides
    /// with another caller's hash.
    caller_hasher: RandomState,
}

impl Authenticator {
    /// Creates an authenticator that has no issuer keys and no revocations yet. Principals get only
    /// scopes and roles of `rights`.
    ///
    /// `public_url` is where browsers reach the service: issuers redirect to it.
    pub fn new(
        settings: &Settings,
        rights: Rights,
        store: &Credentials,
        public_url: &str,
        clock: &Clock,
    ) -> Result<Self, SetupError> {
        let connections = settings.database.max_connections;
        let tenants = Arc::new(Tenants::new(store.clone()));
        let key = settings.secrets.mac_key.clone();
        let bindings = Bindings::new(public_url, settings.oidc.leeway, key, store.clone(), clock.clone());
        let issuers = Arc::new(Issuers::new(settings, rights, &tenants, bindings, clock)?);
        let api_keys = Arc::new(ApiKeys::new(&settings.api_keys, rights, store.clone(), connections, clock.clone())?);
        let revocations = Revocations::new(store.clone(), Arc::clone(&tenants), settings.revocation, clock.clone());
        let parts = sessions::Parts {
            issuers: Arc::clone(&issuers),
            api_keys: Arc::clone(&api_keys),
            revocations: Arc::clone(&revocations),
            tenants: Arc::clone(&tenants),
            store: store.clone(),
            rights,
            clock: clock.clone(),
        };
        Ok(Self {
            sessions: Sessions::new(settings, public_url, parts),
            issuers,
            api_keys,
            revocations,
            tenants,
            failure_limiter: FailureLimiter::new(settings.failure_limit, clock.clone()),
            services: settings.internal.clone().map(|internal| internal.services).unwrap_or_default(),
            seen_certificates: Mutex::default(),
            rights,
            max_token_bytes: settings.oidc.max_token_bytes,
            clock: clock.clone(),
            hangups: settings.sources.hangups(),
            caller_hasher: RandomState::new(),
        })
    }

    /// Starts the tasks that refresh issuer keys, follow revocations and record uses of API keys.
    /// They end when the returned set is dropped.
    #[must_use]
    pub fn start_background_tasks(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        self.issuers.start_key_refresh(&mut tasks, &self.hangups);
        tasks.spawn(Arc::clone(&self.revocations).follow());
        self.api_keys.start_background_tasks(&mut tasks);
        tasks
    }

    /// Writes pending last-use times of API keys. Called at shutdown.
    pub async fn flush(&self) {
        self.api_keys.flush_uses().await;
    }

    /// Whether the replica can authenticate callers, for the readiness probe.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.issuers.is_ready() && !self.revocations.is_stale()
    }

    /// The registry of tenants, as this replica has loaded it.
    #[must_use]
    pub fn tenants(&self) -> Arc<Tenants> {
        Arc::clone(&self.tenants)
    }

    /// Loads all revocations and tenants. Called once, before the first request is served.
    pub async fn load_revocations(&self) -> Result<(), DbError> {
        self.revocations.load(None).await
    }

    /// Whether an authenticated principal is still accepted. Long-running responses check it.
    #[must_use]
    pub fn still_accepts(&self, principal: &Principal) -> bool {
        self.check(principal).is_ok()
    }

    /// Rejects a revoked credential, and refuses a tenant that may not call.
    fn check(&self, principal: &Principal) -> Result<(), AuthnError> {
        self.revocations.check(principal)?;
        self.tenants.check(principal.tenant)
    }

    /// The caller, if this replica accepted the credential recently (RATE-06).
    ///
    /// The edge keys its rate limit per caller by it. Accepted are: a cached token that is still
    /// valid, an API key that verified when it was last checked, and a service's certificate on the
    /// internal listener. Nothing is verified here, so the result authorizes nothing.
    #[must_use]
    pub fn lookup_cached(&self, credentials: RequestCredentials<'_>) -> Option<CachedCaller> {
        let connection = credentials.connection;
        match self.extract(credentials).ok()? {
            None if !connection.internal => None,
            None => {
                let (_, caller) = self.identify_service(connection).ok()?;
                Some(self.cached_caller(caller.tenant, caller.subject))
            }
            Some(Credential::Token(token)) => {
                let principal = self.issuers.cached(token.text)?;
                self.check(&principal).ok()?;
                // A stolen bound token must not use up its holder's rate limit. A proof is checked
                // later, since that uses it.
                match &principal.binding {
                    None => {}
                    Some(Binding::Key(_)) => return None,
                    Some(Binding::Certificate(bound)) => {
                        connection.check_certificate(bound, self.clock.timestamp()).ok()?;
                    }
                }
                Some(self.cached_caller(principal.tenant, principal.subject.clone()))
            }
            Some(Credential::ApiKey(presented)) => {
                let (tenant, subject) = self.api_keys.lookup_verified(presented)?;
                Some(self.cached_caller(tenant, subject))
            }
            Some(Credential::Session(_)) if connection.internal => None,
            Some(Credential::Session(presented)) => {
                let (tenant, subject) = self.sessions.lookup_recent(presented)?;
                Some(self.cached_caller(tenant, subject))
            }
        }
    }

    /// Whether tokens of all issuers must be bound to a key (DPoP, RFC 9449); `None` if those of no
    /// issuer may.
    #[must_use]
    pub fn requires_dpop(&self) -> Option<bool> {
        self.issuers.requires_dpop()
    }

    /// A nonce for the next DPoP proofs of a client (RFC 9449 section 8). `None` if no issuer has
    /// tokens that need one.
    #[must_use]
    pub fn new_proof_nonce(&self) -> Option<String> {
        self.issuers.new_nonce()
    }

    /// The one credential of a request.
    fn extract<'r>(&self, credentials: RequestCredentials<'r>) -> Result<Option<Credential<'r>>, RejectReason> {
        let query = credentials.uri.query().unwrap_or_default();
        credential::extract(credentials.headers, query, self.max_token_bytes)
    }

    fn cached_caller(&self, tenant: TenantId, subject: String) -> CachedCaller {
        let hash = self.caller_hasher.hash_one((tenant, &subject));
        CachedCaller { hash, tenant: Some(tenant.uuid()).filter(|id| !id.is_nil()), subject }
    }

    /// Verifies a request's credential and returns its principal.
    ///
    /// After many failures from `source`, a rejection carries a delay of up to one second, or
    /// becomes a lock-out.
    pub async fn authenticate(
        &self,
        credentials: RequestCredentials<'_>,
        source: SourceNetwork,
    ) -> Result<Arc<Principal>, AuthnError> {
        let outcome = self.identify(credentials, source).await;
        self.count_failure(outcome, source)
    }

    /// Counts a rejected credential against its source. After many, the rejection carries a delay, or
    /// becomes a lock-out.
    fn count_failure<T>(&self, outcome: Result<T, AuthnError>, source: SourceNetwork) -> Result<T, AuthnError> {
        let Err(AuthnError::Rejected { reason, key, .. }) = outcome else { return outcome };
        if !reason.counts_as_failure(key) {
            return outcome;
        }
        let failure = match key {
            Some(key) => self.failure_limiter.record_api_key_failure(source, key),
            None => self.failure_limiter.record_token_failure(source),
        };
        match failure {
            FailureOutcome::LockedOut(seconds) => Err(AuthnError::LockedOut { seconds, rejected: Some((reason, key)) }),
            FailureOutcome::Delayed(delay) => Err(AuthnError::Rejected { reason, key, delay }),
        }
    }

    async fn identify(
        &self,
        credentials: RequestCredentials<'_>,
        source: SourceNetwork,
    ) -> Result<Arc<Principal>, AuthnError> {
        let credential = self.extract(credentials)?;
        let connection = credentials.connection;
        // The internal listener requires the certificate of a configured service that is not
        // revoked, whatever other credential the request has.
        let service = if connection.internal { Some(self.identify_service(connection)?) } else { None };
        if let Some((_, caller)) = &service {
            self.revocations.check(caller).inspect_err(|_| caller.name_in_log())?;
        }
        let principal = match (credential, service) {
            (Some(Credential::Token(token)), _) => {
                self.issuers.authenticate(token, credentials, &self.revocations, &self.api_keys).await?
            }
            (Some(Credential::ApiKey(presented)), _) => {
                // It checks revocations itself, and an API key is bound to no certificate.
                let keys = &self.api_keys;
                let principal = keys.authenticate(presented, source, &self.revocations, &self.failure_limiter).await?;
                self.tenants.check(principal.tenant)?;
                return Ok(principal);
            }
            (Some(Credential::Session(_)), Some(_)) => return Err(RejectReason::TwoCredentials.into()),
            (Some(Credential::Session(presented)), None) => {
                // It checks revocations and the tenant itself, and a session is bound to no certificate.
                return self.sessions.authenticate(presented, credentials.headers, source).await;
            }
            (None, Some((service, caller))) => {
                self.record_service(&caller, connection);
                if service.tenant.is_none() {
                    return Err(RejectReason::Tenant.into());
                }
                self.tenants.check(caller.tenant)?;
                return Ok(Arc::new(caller));
            }
            (None, None) => return Err(AuthnError::Missing),
        };
        self.check(&principal)?;
        Ok(principal)
    }
}
