//! Helpers for tests with API keys: key and path of a created API key, API keys with another
//! secret, and revocations as an operator adds them.

use http::Method;
use palisade::{authz::api_keys::API_KEYS, crypto, dev::database::Urls};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sqlx::Connection as _;

use crate::{Actor, Reply, TestApp, eventually};

/// Whether the kernel has the feature `api_keys`, which the service chooses.
pub fn are_enabled() -> bool {
    !API_KEYS.is_empty()
}

/// The API key in the response to its creation.
pub fn key_text(created: &Value) -> &str {
    created["key"].as_str().unwrap()
}

/// The path of the API key in the response to its creation.
pub fn key_path(created: &Value) -> String {
    format!("/v1/api-keys/{}", created["id"].as_str().unwrap())
}

/// Sends a `DELETE` request.
pub async fn delete(actor: &Actor, path: &str) -> Reply {
    actor.send(actor.request(Method::DELETE, path)).await
}

/// The API key with another secret, and with the checksum of the new text.
pub fn with_secret(key: &str, secret: &str) -> String {
    let (id, _) = key.rsplit_once('_').unwrap();
    with_checksum(&format!("{id}_{secret}"))
}

/// The text with the checksum that the format requires.
pub fn with_checksum(text: &str) -> String {
    let sum = crypto::sha256(text.as_bytes());
    let digits = crypto::base62(u128::from(u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]])));
    format!("{text}{}", &digits[16..])
}

/// Adds a revocation as the operator's login.
pub async fn add_revocation(database: &Urls, kind: &str, value: &str) {
    let mut operator = sqlx::PgConnection::connect(database.operator.expose_secret()).await.unwrap();
    let add = "select palisade.record_revocation($1, $2, now(), 'a test')";
    sqlx::query(add).bind(kind).bind(value).execute(&mut operator).await.unwrap();
    sqlx::query("select pg_notify('revocations', '')").execute(&mut operator).await.unwrap();
}

/// Adds a revocation and waits until the replica has loaded it.
pub async fn revoke(app: &TestApp, kind: &str, value: &str) {
    add_revocation(&app.database, kind, value).await;
    // The replica rejects this later revocation only when it has loaded both. The token has a
    // subject of its own: its roles would otherwise count for the API keys of that subject.
    let jti = uuid::Uuid::now_v7().to_string();
    let probe = app.bearer(app.forge().claim("sub", "whose token is revoked").claim("jti", &*jti).token());
    add_revocation(&app.database, "token", &jti).await;
    eventually("the revocation is loaded", async || probe.get("/v1/me").await.status == 401).await;
}
