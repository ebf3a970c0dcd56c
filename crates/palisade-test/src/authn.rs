//! Helpers of the authentication tests: the response that all rejected credentials get, the reason
//! in its event, and waiting for the status of `GET /v1/me`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Actor, Reply, UNTHROTTLED, eventually};

/// Refreshes the issuer's keys once a second, and has no rate limit per address.
pub const REFRESH_EVERY_SECOND: [(&str, &str); 5] =
    [UNTHROTTLED[0], UNTHROTTLED[1], UNTHROTTLED[2], UNTHROTTLED[3], ("APP_OIDC__REFRESH_SECONDS", "1")];

/// Checks that the reply is the 401 of a rejected credential, which does not name the reason.
#[track_caller]
pub fn assert_rejected(reply: &Reply, case: &str) {
    assert_eq!(reply.status, 401, "{case}: {reply:#?}");
    assert_eq!(reply.problem(401), "unauthenticated", "{case}");
    assert_eq!(challenge(reply)["error"], "invalid_token", "{case}");
    assert_eq!(reply.body["detail"], Value::Null, "{case}");
}

/// The parameters of the reply's challenge. Those that every challenge has are asserted: the realm,
/// and the document about the API (RFC 9728 section 5.1).
#[track_caller]
pub fn challenge(reply: &Reply) -> BTreeMap<String, String> {
    let value = reply.header("www-authenticate").expect("a challenge");
    let parameters = value.strip_prefix("Bearer ").expect(value).split(", ");
    let pairs = parameters.map(|parameter| parameter.split_once('=').expect(parameter));
    let parameters: BTreeMap<_, _> =
        pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect();
    assert!(!parameters["realm"].is_empty(), "{value}");
    assert!(parameters["resource_metadata"].ends_with("/.well-known/oauth-protected-resource"), "{value}");
    parameters
}

/// Checks that the reply is the 400 of a request with two credentials (RFC 6750 section 3.1).
#[track_caller]
pub fn assert_ambiguous(reply: &Reply, case: &str) {
    assert_eq!(reply.problem(400), "malformed_request", "{case}");
    assert_eq!(challenge(reply)["error"], "invalid_request", "{case}");
}

/// The reason in the event of a rejected credential.
#[track_caller]
pub fn reject_reason(reply: &Reply) -> String {
    reply.problem(401);
    reply.events()[0]["reason"].clone()
}

/// Waits until `GET /v1/me` has this status.
pub async fn until_status(actor: &Actor, status: u16) {
    eventually(&format!("status {status}"), async || actor.get("/v1/me").await.status == status).await;
}
