//! Settings of commands that need a PostgreSQL role, or only the address of the service.
//!
//! The server's environment has none of these roles, except that of incidents if a service may
//! send commands for them.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use secrecy::SecretString;

use super::{
    Faults, Http, Internal, Reader, SecretRead, ServiceSections, environment,
    row::Setting,
    secrets,
    table::{CommandLogins, IncidentLogin, KeyRows, TlsFiles},
};
use crate::{crypto::IndexKeys, model::ServiceRight};

/// The database URL of one PostgreSQL role.
#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// `postgres://role:…@host/db`.
    pub url: SecretString,
    /// Where it was read (SECRET-05).
    pub secrets_read: Vec<SecretRead>,
}

impl LoginSettings {
    /// Reads `APP_DATABASE__OWNER_URL` of the process environment, for `migrate` and `restore`.
    pub fn owner() -> Result<Self, Faults> {
        Self::load(&CommandLogins::owner_url)
    }

    /// Reads `APP_DATABASE__OPERATOR_URL`, for `incident`, `tenant` and `keys rewrap`.
    pub fn operator() -> Result<Self, Faults> {
        Self::load(&CommandLogins::operator_url)
    }

    /// Reads `APP_DATABASE__BACKUP_URL`, for `backup` and `audit verify`.
    pub fn backup() -> Result<Self, Faults> {
        Self::load(&CommandLogins::backup_url)
    }

    /// The role for incidents and tenants; `None` if no service may send commands for them.
    pub(super) fn for_incidents(r: &mut Reader, internal: Option<&Internal>) -> Option<Self> {
        let mut services = internal?.services.values();
        let needed = services.any(|service| {
            [ServiceRight::Incidents, ServiceRight::Tenants].iter().any(|right| service.rights.contains(right))
        });
        let url = needed.then(|| r.read(&IncidentLogin::incidents_url, None)).flatten()?;
        Some(Self { url, secrets_read: Vec::new() })
    }

    fn load(setting: &Setting<SecretString>) -> Result<Self, Faults> {
        let (url, secrets_read) = load(|r| r.read(setting, None))?;
        Ok(Self { url, secrets_read })
    }
}

/// Settings of the commands that retire keys. They must also work if the service does not start.
#[derive(Clone, Debug)]
pub struct RetirementSettings {
    /// The operator's role.
    pub operator: LoginSettings,
    /// Index keys, for commands that need them: the first one stays.
    pub index: Option<Arc<IndexKeys>>,
}

impl RetirementSettings {
    /// Reads the process environment.
    pub fn load(with_index_keys: bool) -> Result<Self, Faults> {
        let read = |r: &mut Reader| {
            let url = r.read(&CommandLogins::operator_url, None);
            let index = with_index_keys.then(|| r.read(&KeyRows::index, None));
            Some((url?, index.map_or(Some(None), |index| index.map(Some))?))
        };
        let ((url, index), secrets_read) = load(read)?;
        Ok(Self { operator: LoginSettings { url, secrets_read }, index })
    }
}

/// Where the command `health` finds the service.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSettings {
    /// The listen address, or the loopback address if the service listens on all.
    pub address: SocketAddr,
    /// Whether the service has a certificate.
    pub is_tls: bool,
}

impl ProbeSettings {
    /// Reads the process environment.
    pub fn load() -> Result<Self, Faults> {
        let read = |r: &mut Reader| {
            let mut address = r.read(&Http::listen, None)?;
            match address {
                SocketAddr::V4(all) if all.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                SocketAddr::V6(all) if all.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            Some(Self { address, is_tls: r.has(&TlsFiles::certificate.name()) })
        };
        Ok(load(read)?.0)
    }
}

/// Reads the process environment for a command. It may also hold the server's settings, which are
/// not checked.
fn load<T>(read: impl FnOnce(&mut Reader) -> Option<T>) -> Result<(T, Vec<SecretRead>), Faults> {
    let mut reader = Reader::new(environment(), ServiceSections::NONE);
    let settings = read(&mut reader);
    if reader.is_production() {
        secrets::check(&mut reader);
        reader.reject_driver_variables();
    }
    let secrets_read = reader.secrets_read();
    Ok((reader.finish(settings)?, secrets_read))
}
