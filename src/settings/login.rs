use std::sync::Arc;

use secrecy::SecretString;

use super::{Faults, Internal, Reader, SecretRead, checks, environment, secrets};
use crate::{authz::internal::ServiceRight, crypto::IndexKeys};

const OPERATOR: &str = "database.operator_url";

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

    /// `APP_DATABASE__OPERATOR_URL` of the process environment, for `incident` and `keys rewrap`.
    pub fn operator() -> Result<Self, Faults> {
        Self::load(OPERATOR)
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
        load(|r| url(r, key)).map(|(url, secrets_read)| Self { url, secrets_read })
    }
}

/// What the commands that retire keys need to know, and no more: they are for when the service does not start, too.
#[derive(Clone, Debug)]
pub struct RetirementSettings {
    /// `APP_DATABASE__OPERATOR_URL`.
    pub operator: LoginSettings,
    /// `APP_KEYS__INDEX`, where it was asked for: the first of them stays.
    pub index: Option<Arc<IndexKeys>>,
}

impl RetirementSettings {
    /// Reads the process environment.
    pub fn load(with_index_keys: bool) -> Result<Self, Faults> {
        let read = |r: &mut Reader| {
            let url = url(r, OPERATOR);
            let index = with_index_keys.then(|| r.secret_with("keys.index", IndexKeys::from_text).map(Arc::new));
            Some((url?, index.map_or(Some(None), |index| index.map(Some))?))
        };
        let ((url, index), secrets_read) = load(read)?;
        Ok(Self { operator: LoginSettings { url, secrets_read }, index })
    }
}

/// Reads the process environment for a command. The server's settings may be there too; they are its own affair.
fn load<T>(read: impl FnOnce(&mut Reader) -> Option<T>) -> Result<(T, Vec<SecretRead>), Faults> {
    let mut reader = Reader::new(environment());
    let found = read(&mut reader);
    if reader.is_production() {
        secrets::check(&mut reader);
        reader.refuse_the_drivers();
    }
    let secrets_read = reader.secrets.reads();
    let faults = reader.faults();
    match found {
        Some(found) if faults.0.is_empty() => Ok((found, secrets_read)),
        _ => Err(faults),
    }
}
