//! Security events in the vocabulary of the OWASP Logging Vocabulary Cheat Sheet (LOG-01).
//!
//! One function per event, so that an event has the same fields wherever it is raised. Each event
//! is counted in the metric `security.events` and logged under the target `security`; time and
//! trace id come with every log line. After authentication each event also has the kind of the
//! credential, the OAuth client and the actor. Events that callers can cause with each request are coalesced by
//! origin (see [`repeats`]). Callers of these functions pass identifiers and reasons, never secrets.

use std::{error::Error, fmt, net::IpAddr};

use uuid::Uuid;

use super::{RequestTelemetry, causes, metrics, repeats};
use crate::model::ClientNetwork;

/// Counts an event and logs it. With `of source, reason`, further events from the same source with
/// the same reason share one summary line every ten seconds.
macro_rules! raise {
    ($level:ident, $event:literal of $source:expr, $reason:expr; $($rest:tt)+) => {{
        metrics::record_event($event);
        if repeats::is_first($event, &$source, $reason) {
            raise!(@line $level, $event, $($rest)+);
        }
    }};
    (@line $level:ident, $event:expr, $($rest:tt)+) => {{
        let request = RequestTelemetry::current();
        let caller = request.as_ref().and_then(|request| request.caller.get());
        let credential = caller.map(|caller| caller.credential);
        let client_id = caller.and_then(|caller| caller.client_id.as_deref());
        let actor = caller.and_then(|caller| caller.actor.as_deref());
        tracing::$level!(target: "security", event = $event, credential, client_id, actor, $($rest)+);
    }};
    ($level:ident, $event:literal, $($rest:tt)+) => {{
        metrics::record_event($event);
        raise!(@line $level, $event, $($rest)+);
    }};
}

#[cfg(feature = "sessions")]
mod sessions;
#[cfg(feature = "sessions")]
pub(crate) use sessions::*;

/// The subject and the tenant of the request's caller, and its network address, as far as known.
fn origin() -> (Option<String>, Option<String>, Option<String>) {
    let Some(request) = RequestTelemetry::current() else { return (None, None, None) };
    let caller = request.caller.get();
    let subject = caller.map(|caller| caller.subject.clone());
    (subject, caller.and_then(|caller| caller.tenant.clone()), request.client.map(|client| client.to_string()))
}

/// This replica has verified a credential that was not in its cache: the first use, or the first one
/// after the cache lost it.
pub(crate) fn authn_login_success() {
    let (subject, tenant, source) = origin();
    let caller = [tenant.as_deref(), subject.as_deref()].map(Option::unwrap_or_default).join(" ");
    raise!(info, "authn_login_success" of caller, ""; subject, tenant, source, "credential verified");
}

/// A credential was rejected. `reason` is for operators; the caller never sees it.
/// `claim` is the claim that is absent or invalid, `key` the id of the API key, if one was presented.
pub(crate) fn authn_token_invalid(reason: &str, claim: Option<&'static str>, source: IpAddr, key: Option<&str>) {
    let kind = [Some(reason), claim].into_iter().flatten().collect::<Vec<_>>().join(" ");
    raise!(warn, "authn_token_invalid" of source, &kind; reason, claim, %source, key, "credential rejected");
}

/// A revoked credential was presented.
pub(crate) fn authn_token_reuse(source: IpAddr, key: Option<&str>) {
    let (subject, tenant, _) = origin();
    raise!(
        warn, "authn_token_reuse" of format_args!("{source} {}", key.or(subject.as_deref()).unwrap_or_default()),
        "revoked";
        reason = "revoked", %source, key, subject, tenant, "revoked credential"
    );
}

/// Too many authentications with one API key failed, counted over all sources. Blocks no caller.
pub(crate) fn authn_login_fail_max(key: &str, failures: u32) {
    raise!(warn, "authn_login_fail_max", key, failures, "too many failed authentications with one API key");
}

/// A source is blocked for some seconds: from all costly work or, with `key`, from that API key.
pub(crate) fn authn_login_lock(source: impl fmt::Display, key: Option<&str>, failures: u32, seconds: i64) {
    raise!(warn, "authn_login_lock", %source, key, failures, seconds, "source blocked after failed authentications");
}

/// A request with a session cookie comes from another site, or lacks the CSRF token of the session.
pub(crate) fn malicious_csrf(reason: &'static str, source: IpAddr) {
    raise!(warn, "malicious_csrf" of source, reason; reason, %source, "cross-site request rejected");
}

/// An authenticated caller was denied an operation. `reason` is a scope, `role`, `api_key`, `right`,
/// or `object`: no such object for this caller.
/// An authenticated caller was denied an operation. `reason` is a scope, `role`, `api_key`, `actor`,
/// `sign_in`, `right`, or `object`: no such object for this caller.
pub(crate) fn authz_fail(subject: &str, tenant: &str, operation: &str, reason: &str) {
    raise!(
        warn, "authz_fail" of format_args!("{tenant} {subject}"), &format!("{operation} {reason}");
        subject, tenant, operation, reason, "access denied"
    );
}

/// The credential of a caller is valid, and its tenant may not call: `reason` is `tenant_suspended` or
/// `tenant_unknown`.
pub(crate) fn tenant_refused(reason: &str) {
    let (subject, tenant, source) = origin();
    let caller = [tenant.as_deref(), subject.as_deref()].map(Option::unwrap_or_default).join(" ");
    raise!(warn, "authz_fail" of caller, reason; subject, tenant, source, reason, "access denied");
}

/// An operator created, changed, exported or deleted a tenant. `service` is the one that sent the
/// command; empty at the command line.
pub(crate) fn tenant_changed(command: &str, tenant: &str, service: &str, reason: &str) {
    raise!(warn, "tenant_changed", command, tenant, service, reason, "registry of tenants changed");
}

/// A client or network exceeded the limit named `limit`.
pub(crate) fn excess_rate_limit_exceeded(client: impl fmt::Display + Copy, limit: &'static str) {
    raise!(warn, "excess_rate_limit_exceeded" of client, limit; %client, limit, "rate limit exceeded");
}

/// An authenticated caller exceeded the rate limit of its own bucket. `client` is its network.
pub(crate) fn excess_rate_of_caller(
    subject: &str,
    tenant: Option<Uuid>,
    client: impl fmt::Display,
    limit: &'static str,
) {
    let tenant = tenant.map(|tenant| tenant.to_string());
    let caller = format!("{} {subject}", tenant.as_deref().unwrap_or_default());
    raise!(
        warn, "excess_rate_limit_exceeded" of caller, limit;
        subject, tenant, %client, limit, "rate limit exceeded"
    );
}

/// The edge rejected or aborted a connection, request or response because a budget that is not a
/// rate limit was used up, such as the number of connections.
pub(crate) fn edge_budget_exceeded(client: impl fmt::Display + Copy, budget: &'static str) {
    metrics::record_refusal(budget);
    excess_rate_limit_exceeded(client, budget);
}

/// A caller exceeded the quota named `limit`.
pub(crate) fn excess_quota_exceeded(subject: &str, tenant: &str, operation: &str, limit: &str) {
    raise!(
        warn, "excess_rate_limit_exceeded" of format_args!("{tenant} {subject}"), limit;
        subject, tenant, operation, limit, "quota exceeded"
    );
}

/// An event that a service declares: a caller was refused for a `reason` of the business. Further
/// ones of the same caller share one summary line.
pub fn refused_by_service(name: &'static str, subject: &str, tenant: &str, reason: &'static str) {
    metrics::record_event(name);
    if repeats::is_first(name, &format_args!("{tenant} {subject}"), reason) {
        raise!(@line warn, name, subject, tenant, reason, "refused by a rule of the service");
    }
}

/// The input of an operation was rejected, with this many field errors.
pub(crate) fn input_validation_fail(code: &str, faults: usize) {
    let (subject, tenant, _) = origin();
    let client = RequestTelemetry::current().and_then(|request| request.client);
    let source = client.map(|client| ClientNetwork::narrowest(client).to_string());
    let caller = subject.as_deref().map(|subject| format!("{} {subject}", tenant.as_deref().unwrap_or_default()));
    raise!(
        info, "input_validation_fail" of caller.as_ref().or(source.as_ref()).map_or("", String::as_str), code;
        code, faults, source, subject, tenant, "input rejected"
    );
}

/// A connection of this network ended because of malformed HTTP.
pub(crate) fn malformed_connection(source: impl fmt::Display + Copy, code: &'static str) {
    raise!(warn, "input_validation_fail" of source, code; code, %source, "connection closed for malformed HTTP");
}

/// `subject` changed an object. `action` is the audit name of the operation.
pub(crate) fn data_changed(subject: &str, tenant: &str, action: &str, object: &str) {
    raise!(info, "data_changed", subject, tenant, action, object, "data changed");
}

/// The audit trail is sealed up to the journal position `upto`. `digest` is hexadecimal.
///
/// Kept where the owner of the database cannot write, these lines prove whether the trail was
/// changed (LOG-05).
pub(crate) fn audit_sealed(number: i64, upto: i64, events: i64, digest: &str) {
    raise!(info, "audit_sealed", number, upto, events, digest, "audit trail sealed");
}

/// The audit trail could not be sealed: events since the last seal are as safe as the database.
pub(crate) fn audit_not_sealed(error: &dyn Error) {
    let cause = causes(error);
    raise!(error, "audit_not_sealed", %error, cause, "could not seal the audit trail");
}

/// Verification of the audit trail found changes.
pub(crate) fn audit_trail_invalid(findings: usize) {
    raise!(error, "audit_trail_invalid", findings, "audit trail was changed");
}

/// A login of the service changed rows, and no request recorded that: an attacker with that login, or
/// a bug. The seal has their events.
pub(crate) fn audit_row_changed(seal: i64, rows: i64) {
    raise!(error, "audit_row_changed", seal, rows, "rows were changed past the service");
}

/// The owner of the database prunes the audit trail up to a seal.
pub(crate) fn audit_pruned(number: i64, digest: &str, events: i64, reason: &str) {
    raise!(warn, "audit_pruned", number, digest, events, reason, "audit trail pruned");
}

/// The owner of the database declares seals lost by a restore: `number:digest`, separated by spaces.
pub(crate) fn audit_restored(seals: &str, reason: &str) {
    raise!(warn, "audit_restored", seals, reason, "seals of the audit trail declared lost");
}

/// A row with sealed fields: its tenant, its id and the version of its data key.
pub(crate) type SealedRow = (Uuid, Uuid, i32);

/// A sealed field does not open with the key of its row: its bytes were changed, or moved to this
/// row from another one (CRYPTO-03).
pub(crate) fn sealed_data_invalid((tenant, row, data_key): SealedRow, table: &str, column: &str) {
    raise!(error, "sealed_data_invalid", %tenant, table, column, %row, data_key, "sealed field does not open");
}

/// A row has sealed fields, and no row key.
pub(crate) fn row_key_missing(tenant: &str, table: &str, row: &str) {
    raise!(error, "sealed_data_invalid", tenant, table, row, "row key is missing");
}

/// The key of a row cannot be unwrapped with the data key of its tenant.
pub(crate) fn sealed_key_invalid(tenant: &str, table: &str, row: &str, data_key: i32) {
    raise!(error, "sealed_data_invalid", tenant, table, row, data_key, "row key cannot be unwrapped");
}

/// A data key cannot be unwrapped with the master key that it names.
pub(crate) fn data_key_invalid(tenant: &str, data_key: i32, error: &dyn Error) {
    raise!(error, "sealed_data_invalid", tenant, data_key, %error, "data key cannot be unwrapped");
}

/// A search found a row by a value that the row does not have: its blind index was changed or moved
/// (CRYPTO-06).
pub(crate) fn index_invalid((tenant, row, data_key): SealedRow, table: &str, column: &str) {
    raise!(error, "sealed_data_invalid", %tenant, table, column, %row, data_key, "blind index does not match its field");
}

/// A caller read a record of personal data in plain text, or found one by it (CRYPTO-07).
pub(crate) fn sensitive_read(subject: &str, tenant: &str, operation: &str) {
    raise!(info, "sensitive_read", subject, tenant, operation, "personal data read");
}

/// A caller reads more records of personal data in a minute than is usual (CRYPTO-07).
pub(crate) fn sensitive_read_excess(subject: &str, tenant: &str, operation: &str, per_minute: u32) {
    raise!(warn, "sensitive_read_excess", subject, tenant, operation, per_minute, "more personal data read than usual");
}

/// A backup was written: plain size, SHA-256 of the encrypted file, and number of recipients.
pub(crate) fn data_backed_up(file: &str, bytes: u64, sha256: &str, recipients: usize) {
    raise!(info, "data_backed_up", file, bytes, sha256, recipients, "backup written");
}

/// A backup was restored into a database: size of the encrypted file, and number of rows and tenants
/// that had been erased after it.
pub(crate) fn data_restored(file: &str, bytes: u64, erased_rows: i64, destroyed_tenants: i64) {
    raise!(warn, "data_restored", file, bytes, erased_rows, destroyed_tenants, "backup restored");
}

/// A component read a secret: the setting and where it came from, never the value.
pub(crate) fn secret_read(component: &str, setting: &str, source: &str) {
    raise!(info, "secret_read", component, setting, source, "secret read");
}

/// A changed secret is now in use.
pub(crate) fn secret_renewed(setting: &str) {
    raise!(info, "secret_renewed", setting, "changed secret in use");
}

/// A changed secret cannot be used; the previous one stays in use. Raised once per reason, while
/// the service keeps trying.
pub(crate) fn secret_not_renewed(setting: &str, reason: &str) {
    raise!(warn, "secret_not_renewed", setting, reason, "changed secret cannot be used");
}

/// No connection uses the previous password of this setting any more.
pub(crate) fn secret_retired(setting: &str) {
    raise!(info, "secret_retired", setting, "previous secret no longer in use");
}

/// Keys were rotated to `version`. `scope` is a tenant, or `master` for data keys that were
/// rewrapped.
pub(crate) fn crypto_key_rotated(scope: &str, version: &str) {
    raise!(info, "crypto_key_rotated", scope, version, "keys rotated");
}

/// Data keys of a tenant were deleted for good.
pub(crate) fn crypto_key_destroyed(tenant: &str, keys: u64, reason: &str) {
    raise!(warn, "crypto_key_destroyed", tenant, keys, reason, "data keys destroyed");
}

/// A caller started an export of this many rows.
pub(crate) fn data_export_started(subject: &str, tenant: &str, what: &str, rows: i64) {
    raise!(info, "data_export_started", subject, tenant, what, rows, "export started");
}

/// An export ended after `rows` rows; `complete` is false if it was aborted.
pub(crate) fn data_exported(subject: &str, tenant: &str, what: &str, rows: usize, complete: bool) {
    raise!(info, "data_exported", subject, tenant, what, rows, complete, "export ended");
}

/// An incident command was carried out. `service` is the one that sent it; empty at the command
/// line.
pub(crate) fn incident_handled(command: &str, service: &str, outcome: &str, reason: &str) {
    raise!(warn, "incident_handled", command, service, outcome, reason, "incident command carried out");
}

/// This many operator overrides cannot be parsed by this version and are ignored.
pub(crate) fn override_unreadable(overrides: usize) {
    raise!(error, "override_unreadable", overrides, "operator overrides cannot be parsed and are ignored");
}

/// A handler panicked. The panic message is not logged: it may contain anything.
pub(crate) fn sys_crash() {
    raise!(error, "sys_crash", "a request handler panicked");
}
