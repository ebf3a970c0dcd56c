use std::str::FromStr;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use thiserror::Error;

use crate::domain::RevocationKind;

/// How long the database may take. Whoever waits for it has no time to lose.
const PATIENCE: &str = "5s";

/// Why nothing was revoked.
#[derive(Debug, Error)]
pub enum RevokeError {
    /// The operator's login could not connect.
    #[error("cannot connect as the operator")]
    Connect(#[source] sqlx::Error),
    /// The database refused.
    #[error("the database refused, or did not answer within five seconds: nothing was revoked")]
    Refused(#[source] sqlx::Error),
}

/// Revokes, as the operator's login, what `kind` and `value` name and was issued before an instant. Gives the
/// position of the entry. Replicas know it as soon as this returns, or within two seconds if the notice is lost.
pub async fn revoke(
    operator_url: &SecretString,
    kind: RevocationKind,
    value: &str,
    issued_before: DateTime<Utc>,
    reason: &str,
) -> Result<i64, RevokeError> {
    let options = PgConnectOptions::from_str(operator_url.expose_secret())
        .map_err(RevokeError::Connect)?
        .options([("statement_timeout", PATIENCE), ("lock_timeout", PATIENCE)]);
    let mut connection = PgConnection::connect_with(&options).await.map_err(RevokeError::Connect)?;
    sqlx::query_scalar!(
        r#"select note_revocation($1, $2, $3, $4) as "position!""#,
        kind.as_str(),
        value,
        issued_before,
        reason
    )
    .fetch_one(&mut connection)
    .await
    .map_err(RevokeError::Refused)
}
