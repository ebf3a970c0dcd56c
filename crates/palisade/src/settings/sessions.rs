//! The settings of browser sessions, and the client at each issuer (AUTHN-14).

use std::collections::BTreeMap;

pub use super::table::Sessions;
use super::{Issuer, Reader, table::SessionClient};

impl Sessions {
    /// Whether people can sign in at this issuer.
    pub(crate) fn has_client_of(&self, issuer: &Issuer) -> bool {
        self.clients.contains_key(&issuer.name)
    }

    /// `None` if a value is invalid.
    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let mut clients = BTreeMap::new();
        let issuers = r.instances(Issuer::SECTION.path);
        // All of them before the first `?`, so that every fault is found.
        let names = r.instances(SessionClient::SECTION.path);
        for name in std::iter::once(None).chain(names.into_iter().map(Some)) {
            let instance = name.as_deref();
            let client = SessionClient::read_rows(r, instance);
            if instance.is_some_and(|name| !issuers.contains(name)) {
                r.fault(
                    &SessionClient::id.resolve_name(instance),
                    "is of no further issuer: set its APP_OIDC__FURTHER__…",
                );
            }
            match client {
                Some(client) if client.id.is_some() => drop(clients.insert(name, client)),
                Some(client) if client.secret.is_some() || client.scopes.is_some() => {
                    let setting = SessionClient::id.resolve_name(instance);
                    r.fault(&setting, "is required, since other settings of this client are set");
                }
                _ => {}
            }
        }
        Self::read_rows(r, None, Some(clients))
    }

    /// Calls per minute of credential operations.
    pub(super) fn credential_quota(&self) -> u32 {
        self.attempts
    }
}
