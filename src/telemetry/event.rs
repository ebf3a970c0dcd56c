//! Security events, in the OWASP logging vocabulary: who, what, from where, with what result.
//!
//! One function per event, so that its fields are the same wherever it is raised. All go
//! out under the target `security` and are counted; when and in which request are part of every log line.
//! What callers can cause at the rate of their requests is coalesced by origin: see [`repeats`].

use std::{fmt, net::IpAddr};

use super::{InRequest, metrics, repeats};
use crate::{
    crypto::{self, MasterKeyError, RowKey},
    domain::AuditSeal,
    store::StoreError,
};

/// Counts an event and writes its line. With `of source, reason`, repetitions of both within a few
/// seconds share a line.
macro_rules! raise {
    ($level:ident, $event:literal of $source:expr, $reason:expr; $($rest:tt)+) => {{
        metrics::event($event);
        if repeats::is_first($event, &$source, $reason) {
            tracing::$level!(target: "security", event = $event, $($rest)+);
        }
    }};
    ($level:ident, $event:literal, $($rest:tt)+) => {{
        metrics::event($event);
        tracing::$level!(target: "security", event = $event, $($rest)+);
    }};
}

/// A credential was presented and refused. `reason` is for the operator; the caller never sees it.
/// `key` is the API key, if one was presented.
pub(crate) fn authn_token_invalid(reason: &str, source: IpAddr, key: Option<&str>) {
    raise!(warn, "authn_token_invalid" of source, reason; reason, %source, key, "credential refused");
}

/// A credential was presented that had been revoked.
pub(crate) fn authn_token_reuse(source: IpAddr, key: Option<&str>) {
    let origin = format!("{source} {}", key.unwrap_or_default());
    raise!(warn, "authn_token_reuse" of origin, "revoked"; reason = "revoked", %source, key, "revoked credential");
}

/// Too many failures with one API key, from wherever. Nobody is shut out because of it.
pub(crate) fn authn_login_fail_max(key: &str, failures: u32) {
    raise!(warn, "authn_login_fail_max", key, failures, "somebody guesses at an API key");
}

/// A source is shut out for a while, from everything that costs or, with `key`, from that API key.
pub(crate) fn authn_login_lock(source: Option<IpAddr>, key: Option<&str>, failures: u32, seconds: i64) {
    let source = source.map(|source| source.to_string());
    raise!(warn, "authn_login_lock", source, key, failures, seconds, "source shut out");
}

/// An authenticated caller was refused an operation.
pub(crate) fn authz_fail(subject: &str, tenant: &str, operation: &str, reason: &str) {
    raise!(warn, "authz_fail" of format_args!("{tenant} {subject}"), &format!("{operation} {reason}"); subject, tenant, operation, reason, "access denied");
}

/// A limit was hit by a network or another client; `limit` names which.
pub(crate) fn excess_rate_limit_exceeded(client: impl fmt::Display + Copy, limit: &'static str) {
    raise!(warn, "excess_rate_limit_exceeded" of client, limit; %client, limit, "throttled");
}

/// The edge refused or broke off something that is within no rate limit: a connection, a request, a response. `what`
/// names which of its budgets was used up.
pub(crate) fn refused(client: impl fmt::Display + Copy, what: &'static str) {
    metrics::refusal(what);
    excess_rate_limit_exceeded(client, what);
}

/// A caller used up a quota; `limit` names which.
pub(crate) fn excess_quota_exceeded(subject: &str, tenant: &str, operation: &str, limit: &str) {
    raise!(warn, "excess_rate_limit_exceeded" of format_args!("{tenant} {subject}"), limit; subject, tenant, operation, limit, "throttled");
}

/// The input of an operation was refused.
pub(crate) fn input_validation_fail(code: &str, faults: usize) {
    let client = InRequest::current().and_then(|request| request.client).map(|client| client.to_string());
    let source = client.as_deref().unwrap_or_default();
    raise!(info, "input_validation_fail" of source, code; code, faults, source, "input refused");
}

/// Something changed at the request of `subject`. `action` is the audit name of the operation.
pub(crate) fn data_changed(subject: &str, tenant: &str, action: &str, object: &str) {
    raise!(info, "data_changed", subject, tenant, action, object, "changed");
}

/// The audit trail was sealed up to there. Kept where the database's owner cannot change it, such lines show whether the
/// trail was (LOG-05).
pub(crate) fn audit_sealed(seal: &AuditSeal) {
    let (number, upto, events, digest) = (seal.number, seal.upto, seal.events, crypto::hex(&seal.digest));
    raise!(info, "audit_sealed", number, upto, events, digest, "audit trail sealed");
}

/// The audit trail cannot be sealed: what is written from now on is only as safe as the database.
pub(crate) fn audit_not_sealed(error: &StoreError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    raise!(error, "audit_not_sealed", %error, cause, "the audit trail cannot be sealed");
}

/// The audit trail is not what it was.
pub(crate) fn audit_trail_invalid(findings: usize) {
    raise!(error, "audit_trail_invalid", findings, "somebody changed the audit trail");
}

/// What is stored does not open with the key of its row: somebody changed it, or moved it there (CRYPTO-03).
pub(crate) fn sealed_data_invalid(key: &RowKey, table: &str, column: &str) {
    raise!(error, "sealed_data_invalid", ?key, table, column, "what is stored does not open");
}

/// The key of a row does not open with the data key of its tenant.
pub(crate) fn sealed_key_invalid(tenant: &str, table: &str, row: &str, data_key: i32) {
    raise!(error, "sealed_data_invalid", tenant, table, row, data_key, "the key of a row does not open");
}

/// A data key does not open with the master key that it names.
pub(crate) fn data_key_invalid(tenant: &str, data_key: i32, error: &MasterKeyError) {
    raise!(error, "sealed_data_invalid", tenant, data_key, %error, "a data key does not open");
}

/// A row was found by a value that it does not have: somebody moved its index there (CRYPTO-06).
pub(crate) fn index_invalid(key: &RowKey, table: &str, column: &str) {
    raise!(error, "sealed_data_invalid", ?key, table, column, "a blind index is of another value");
}

/// Somebody saw fields about so many persons in plain text.
pub(crate) fn sensitive_read(subject: &str, tenant: &str, operation: &str, customers: usize) {
    raise!(info, "sensitive_read", subject, tenant, operation, customers, "seen in plain text");
}

/// Somebody sees more of them than is usual in a minute.
pub(crate) fn sensitive_read_excess(subject: &str, tenant: &str, operation: &str, per_minute: u32) {
    raise!(warn, "sensitive_read_excess", subject, tenant, operation, per_minute, "more was read than is usual");
}

/// A backup was written, for so many to read: what is in it, and the SHA-256 of the file.
pub(crate) fn backed_up(file: &str, bytes: u64, sha256: &str, recipients: usize) {
    raise!(info, "data_backed_up", file, bytes, sha256, recipients, "backup written");
}

/// A backup was put into a database.
pub(crate) fn restored(file: &str, bytes: u64) {
    raise!(warn, "data_restored", file, bytes, "backup restored");
}

/// A component read a secret: which setting, and where it was. Never what it is.
pub(crate) fn secret_read(component: &str, setting: &str, source: &str) {
    raise!(info, "secret_read", component, setting, source, "secret read");
}

/// A secret that changed is used from now on.
pub(crate) fn secret_renewed(setting: &str) {
    raise!(info, "secret_renewed", setting, "a secret that changed is used");
}

/// A secret changed and is not used; what was used before is. Told once, and tried again.
pub(crate) fn secret_not_renewed(setting: &str, reason: &str) {
    raise!(warn, "secret_not_renewed", setting, reason, "a secret that changed cannot be used");
}

/// Nothing uses the password any more that this setting had before.
pub(crate) fn secret_retired(setting: &str) {
    raise!(info, "secret_retired", setting, "the password from before is not used any more");
}

/// Keys were rotated: those of `whose`, a tenant or `master`, to `version`.
pub(crate) fn keys_rotated(whose: &str, version: &str) {
    raise!(info, "crypto_key_rotated", whose, version, "keys rotated");
}

/// Data keys of a tenant are gone for good.
pub(crate) fn keys_destroyed(tenant: &str, keys: u64, reason: &str) {
    raise!(warn, "crypto_key_destroyed", tenant, keys, reason, "data keys destroyed");
}

/// Somebody began to take rows of the books out as a file.
pub(crate) fn export_started(subject: &str, tenant: &str, what: &str, rows: i64) {
    raise!(info, "data_export_started", subject, tenant, what, rows, "export started");
}

/// So many rows were given out; all of them if it is complete.
pub(crate) fn export_ended(subject: &str, tenant: &str, what: &str, rows: usize, complete: bool) {
    raise!(info, "data_exported", subject, tenant, what, rows, complete, "export ended");
}

/// Something was done in an incident, and for whom: nobody, if at the command line.
pub(crate) fn incident_handled(command: &str, whom: &str, outcome: &str, reason: &str) {
    raise!(warn, "incident_handled", command, whom, outcome, reason, "an operator's order");
}

/// So many measures that operators ordered cannot be read by this version, and are not taken.
pub(crate) fn measure_unreadable(measures: usize) {
    raise!(error, "measure_unreadable", measures, "what an operator ordered cannot be read");
}

/// A handler panicked. The message stays out: it may hold anything.
pub(crate) fn sys_crash() {
    raise!(error, "sys_crash", "a request handler panicked");
}
