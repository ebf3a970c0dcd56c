//! The OAuth client with which people sign in at each issuer, and where its metadata may send browsers
//! (AUTHN-14, SECRET-04).
//!
//! [`super::login`], [`super::refresh`] and [`super::logout`] ask for the client of an issuer.
//! `secret_reload` brings changed secrets.

use std::{collections::BTreeMap, sync::Arc};

use url::Url;

use super::{super::issuers::TrustedIssuer, Sessions};
use crate::{
    db::sessions::StoredSession,
    settings::{self, SessionClient},
};

/// The client at each issuer, by the name of the issuer; `None` for the first.
pub(super) type Clients = BTreeMap<Option<String>, Arc<SessionClient>>;

/// The name of the session's issuer; `None` for the first one.
pub(super) fn issuer_name(session: &StoredSession) -> Option<&str> {
    Some(session.issuer.as_str()).filter(|name| !name.is_empty())
}

/// The clients of the settings.
pub(super) fn shared_clients(settings: &settings::Sessions) -> Clients {
    settings.clients.iter().map(|(issuer, client)| (issuer.clone(), Arc::new(client.clone()))).collect()
}

impl Sessions {
    /// The client and the issuer of this name; `None` if people cannot sign in there.
    pub(super) fn client_of(&self, issuer: Option<&str>) -> Option<(Arc<SessionClient>, &TrustedIssuer)> {
        let client = self.clients.load().get(&issuer.map(str::to_owned)).map(Arc::clone)?;
        Some((client, self.parts.issuers.by_name(issuer)?))
    }

    /// Takes changed secrets of clients into use (SECRET-04).
    pub(super) fn reload_secrets(&self, settings: &settings::Sessions) {
        let mut clients = BTreeMap::clone(&self.clients.load());
        for (issuer, client) in &mut clients {
            let secret = settings.clients.get(issuer).and_then(|changed| changed.secret.clone());
            *client = Arc::new(SessionClient { secret, ..SessionClient::clone(client) });
        }
        self.clients.store(Arc::new(clients));
    }

    /// A URL of the issuer's metadata to which a browser may go. A page opens it, so it must not be a
    /// script (`javascript:`).
    pub(super) fn web_url(&self, text: &str) -> Option<Url> {
        let is_safe = |url: &Url| url.scheme() == "https" || url.scheme() == "http" && !self.is_production;
        Url::parse(text).ok().filter(is_safe)
    }
}
