//! Helpers of the authentication tests: the response that all rejected credentials get, the reason
//! in its event, and waiting for the status of `GET /v1/me`.

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
    assert_eq!(reply.header("www-authenticate"), Some("Bearer error=\"invalid_token\""), "{case}");
    assert_eq!(reply.body["detail"], Value::Null, "{case}");
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
