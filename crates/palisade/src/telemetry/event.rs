//! Security events in the vocabulary of the OWASP Logging Vocabulary Cheat Sheet (LOG-01).
//!
//! One function per event, so that an event has the same fields wherever it is raised. Each event
//! is counted in the metric `security.events` and logged under the target `security`; time and
//! trace id come with every log line. Events that callers can cause with each request are coalesced
//! by origin (see [`repeats`]). Callers of these functions pass identifiers and reasons, never
//! secrets.

use std::{error::Error, fmt, net::IpAddr};

use super::{RequestTelemetry, metrics, repeats};

/// Counts an event and logs it. With `of source, reason`, further events from the same source with
/// the same reason share one summary line every ten seconds.
macro_rules! raise {
    ($level:ident, $event:literal of $source:expr, $reason:expr; $($rest:tt)+) => {{
        metrics::record_event($event);
        if repeats::is_first($event, &$source, $reason) {
            tracing::$level!(target: "security", event = $event, $($rest)+);
        }
    }};
    ($level:ident, $event:literal, $($rest:tt)+) => {{
        metrics::record_event($event);
        tracing::$level!(target: "security", event = $event, $($rest)+);
    }};
}

/// A credential was rejected. `reason` is for operators; the caller never sees it.
/// `key` is the id of the API key, if one was presented.
pub(crate) fn authn_token_invalid(reason: &str, source: IpAddr, key: Option<&str>) {
    raise!(warn, "authn_token_invalid" of source, reason; reason, %source, key, "credential rejected");
}

/// A revoked credential was presented.
pub(crate) fn authn_token_reuse(source: IpAddr, key: Option<&str>) {
    let origin = format!("{source} {}", key.unwrap_or_default());
    raise!(warn, "authn_token_reuse" of origin, "revoked"; reason = "revoked", %source, key, "revoked credential");
}

/// Too many authentications with one API key failed, counted over all sources. Blocks no caller.
pub(crate) fn authn_login_fail_max(key: &str, failures: u32) {
    raise!(warn, "authn_login_fail_max", key, failures, "too many failed authentications with one API key");
}

/// A source is blocked for some seconds: from all costly work or, with `key`, from that API key.
pub(crate) fn authn_login_lock(source: Option<IpAddr>, key: Option<&str>, failures: u32, seconds: i64) {
    let source = source.map(|source| source.to_string());
    raise!(warn, "authn_login_lock", source, key, failures, seconds, "source blocked after failed authentications");
}

/// An authenticated caller was denied an operation.
pub(crate) fn authz_fail(subject: &str, tenant: &str, operation: &str, reason: &str) {
    raise!(
        warn, "authz_fail" of format_args!("{tenant} {subject}"), &format!("{operation} {reason}");
        subject, tenant, operation, reason, "access denied"
    );
}

/// A client or network exceeded the limit named `limit`.
pub(crate) fn excess_rate_limit_exceeded(client: impl fmt::Display + Copy, limit: &'static str) {
    raise!(warn, "excess_rate_limit_exceeded" of client, limit; %client, limit, "rate limit exceeded");
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
        tracing::warn!(target: "security", event = name, subject, tenant, reason, "refused by a rule of the service");
    }
}

/// The input of an operation was rejected, with this many field errors.
pub(crate) fn input_validation_fail(code: &str, faults: usize) {
    let client = RequestTelemetry::current().and_then(|request| request.client).map(|client| client.to_string());
    let source = client.as_deref().unwrap_or_default();
    raise!(info, "input_validation_fail" of source, code; code, faults, source, "input rejected");
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
    let cause = error.source().map(ToString::to_string);
    raise!(error, "audit_not_sealed", %error, cause, "could not seal the audit trail");
}

/// Verification of the audit trail found changes.
pub(crate) fn audit_trail_invalid(findings: usize) {
    raise!(error, "audit_trail_invalid", findings, "audit trail was changed");
}

/// A sealed field does not open with the key of its row: its bytes were changed, or moved to this
/// row from another one (CRYPTO-03). `key` names the row and the data key version.
pub(crate) fn sealed_data_invalid(key: &dyn fmt::Debug, table: &str, column: &str) {
    raise!(error, "sealed_data_invalid", ?key, table, column, "sealed field does not open");
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
/// (CRYPTO-06). `key` names the row and the data key version.
pub(crate) fn index_invalid(key: &dyn fmt::Debug, table: &str, column: &str) {
    raise!(error, "sealed_data_invalid", ?key, table, column, "blind index does not match its field");
}

/// A caller read this many records of personal data in plain text (CRYPTO-07).
pub(crate) fn sensitive_read(subject: &str, tenant: &str, operation: &str, records: usize) {
    raise!(info, "sensitive_read", subject, tenant, operation, records, "personal data read");
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

/// An incident command was carried out. `actor` is the service that sent it; empty at the command
/// line.
pub(crate) fn incident_handled(command: &str, actor: &str, outcome: &str, reason: &str) {
    raise!(warn, "incident_handled", command, actor, outcome, reason, "incident command carried out");
}

/// This many operator overrides cannot be parsed by this version and are ignored.
pub(crate) fn override_unreadable(overrides: usize) {
    raise!(error, "override_unreadable", overrides, "operator overrides cannot be parsed and are ignored");
}

/// A handler panicked. The panic message is not logged: it may contain anything.
pub(crate) fn sys_crash() {
    raise!(error, "sys_crash", "a request handler panicked");
}
