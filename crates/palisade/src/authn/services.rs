//! Services of the internal listener, by the names in their client certificates (AUTHN-18).
//!
//! [`super::Authenticator::authenticate`] calls this for operations of the API, and
//! [`crate::internal`] for its own. [`super::certificate`] compares the names.

use std::sync::PoisonError;

use super::{Authenticator, AuthnError, ConnectionInfo, Principal, RejectReason, RequestCredentials, certificate};
use crate::{
    model::{ServiceRight, TenantId},
    settings::Service,
    telemetry::event,
};

impl Authenticator {
    /// Finds the service that the connection's certificate names, and makes its principal.
    ///
    /// A service without a tenant gets the nil tenant; it can call no operation of the API.
    pub(super) fn identify_service<'s>(
        &'s self,
        connection: &'s ConnectionInfo,
    ) -> Result<(&'s Service, Principal), RejectReason> {
        let (service, certificate) = certificate::find_service(&self.services, connection, self.clock.timestamp())?;
        let tenant = service.tenant.unwrap_or(TenantId::from_uuid(uuid::Uuid::nil()));
        Ok((service, certificate::principal(service, certificate, tenant, &self.rights)))
    }

    /// Whether the connection's certificate is of no service that the internal listener accepts.
    pub(crate) fn rejects_certificate(&self, connection: &ConnectionInfo) -> bool {
        let is_accepted = |(_, caller): (&Service, Principal)| !self.revocations.is_subject_revoked(&caller);
        connection.internal && !self.identify_service(connection).is_ok_and(is_accepted)
    }

    /// Names a service that its certificate authenticated in the log, and records the first use of
    /// the certificate.
    pub(super) fn record_service(&self, caller: &Principal, connection: &ConnectionInfo) {
        caller.name_in_log();
        let Some(certificate) = &connection.certificate else { return };
        let mut seen = self.seen_certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.insert(caller.subject.clone(), certificate.thumbprint) != Some(certificate.thumbprint) {
            event::authn_login_success();
        }
    }

    /// Authenticates the service that calls an operation of the internal listener.
    ///
    /// Returns its subject, and whether the settings give it `right`. A stale revocation list does
    /// not block it: monitoring must work while the database is down.
    pub fn authenticate_service(
        &self,
        credentials: RequestCredentials<'_>,
        right: ServiceRight,
    ) -> Result<(String, bool), AuthnError> {
        if !credentials.connection.internal {
            return Err(AuthnError::Missing);
        }
        // The certificate is the credential here; a second one would make the caller ambiguous.
        if self.extract(credentials)?.is_some() {
            return Err(RejectReason::TwoCredentials.into());
        }
        let (service, caller) = self.identify_service(credentials.connection)?;
        if self.revocations.is_subject_revoked(&caller) {
            caller.name_in_log();
            return Err(RejectReason::Revoked.into());
        }
        self.record_service(&caller, credentials.connection);
        Ok((caller.subject, service.rights.contains(&right)))
    }
}
