use secrecy::SecretString;

use super::{Faults, Internal, Reader, SecretRead, checks, environment, secrets};
use crate::authz::internal::ServiceRight;

/// The URL of a login, with a fault for all that is wrong with it.
pub(super) fn url(r: &mut Reader, key: &str) -> Option<SecretString> {
    let url = r.secret(key)?;
    let production = r.is_production();
    checks::check_database(key, &url, production, r);
    Some(url)
}

/// What a command that works on the database needs to know: one login. The server's environment does not hold it, but
/// for that of incidents, if a service may order them to be handled.
#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// `postgres://login:…@host/db`.
    pub url: SecretString,
    /// Where it was read (SECRET-05).
    pub secrets_read: Vec<SecretRead>,
}

impl LoginSettings {
    /// `APP_DATABASE__OWNER_URL` of the process environment, for `migrate`.
    pub fn owner() -> Result<Self, Faults> {
        Self::load("database.owner_url")
    }

    /// `APP_DATABASE__OPERATOR_URL` of the process environment, for `incident` and `keys`.
    pub fn operator() -> Result<Self, Faults> {
        Self::load("database.operator_url")
    }

    /// `APP_DATABASE__BACKUP_URL` of the process environment, for `backup`.
    pub fn backup() -> Result<Self, Faults> {
        Self::load("database.backup_url")
    }

    /// That of incidents, if a service may order them to be handled.
    pub(super) fn of_incidents(r: &mut Reader, internal: Option<&Internal>) -> Option<Self> {
        let wanted = internal?.services.values().any(|service| service.rights.contains(&ServiceRight::Incidents));
        let url = wanted.then(|| url(r, "database.incidents_url")).flatten()?;
        Some(Self { url, secrets_read: Vec::new() })
    }

    fn load(key: &str) -> Result<Self, Faults> {
        let mut reader = Reader::new(environment());
        let url = url(&mut reader, key);
        if reader.is_production() {
            secrets::check(&mut reader);
            reader.refuse_the_drivers();
        }
        let secrets_read = reader.secrets.reads();
        // The server's settings may be there too; they are its own affair.
        let faults = reader.faults();
        match url {
            Some(url) if faults.0.is_empty() => Ok(Self { url, secrets_read }),
            _ => Err(faults),
        }
    }
}
