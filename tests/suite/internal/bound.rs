//! Tokens that are bound to a certificate (RFC 8705).

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use service::crypto;

use super::{JOB, Stage, der, uri};
use crate::support::{Actor, Authority, eventually};

#[tokio::test]
async fn authn_18_a_bound_token_is_its_holders_only() {
    let stage = Stage::start(&[]).await;
    let (job, other) = (stage.authority.sign_for([uri(JOB)]), stage.authority.sign_for([uri(JOB)]));
    let token = stage.bound_to(&job);
    let refused = async |actor: Actor, what: &str| {
        let reply = actor.get("/v1/me").await;
        assert_eq!(reply.problem(401), "unauthenticated", "{what}");
        assert_eq!(reply.events()[0]["reason"], "binding", "{what}");
    };
    // Before and after it is remembered.
    for _ in 0..2 {
        refused(stage.with(&other, Some(token.clone())), "another certificate of the same name").await;
        refused(stage.app.bearer(token.clone()), "none at all").await;
        assert_eq!(stage.with(&job, Some(token.clone())).get("/v1/me").await.ok(200)["kind"], "user");
    }
    let digest = URL_SAFE_NO_PAD.encode(crypto::sha256(&der(&job.0)));
    for cnf in [
        json!({ "x5t#S256": digest, "jkt": digest }),
        json!({ "jkt": digest }),
        json!({ "x5t#S256": format!("{digest}=") }),
        json!({ "x5t#S256": &digest[1..] }),
        json!({ "x5t#S256": [digest] }),
        json!({ "x5t#s256": digest }),
        json!({}),
        json!([digest]),
        json!(digest),
    ] {
        let token = stage.app.forge().claim("cnf", cnf.clone()).token();
        refused(stage.with(&job, Some(token)), &cnf.to_string()).await;
    }
}

/// With an authority of clients, the public listener asks for a certificate too, but it is no credential there.
#[tokio::test]
async fn authn_18_bound_tokens_count_on_the_public_listener_too() {
    let stage = Stage::public(&[("APP_OIDC__REQUIRE_BOUND_TOKENS", "true")]).await;
    let at =
        |certificate: Option<&(String, String)>, token: Option<String>| stage.at(stage.app.address, certificate, token);
    let client = stage.authority.sign_for([uri(JOB)]);
    let token = stage.bound_to(&client);
    at(Some(&client), Some(token.clone())).get("/v1/me").await.ok(200);
    at(None, Some(token.clone())).get("/v1/me").await.problem(401);
    at(Some(&client), None).get("/v1/me").await.problem(401);
    at(Some(&client), None).get("/metrics").await.problem(404);
    at(None, None).get("/health/live").await.ok(200);
    let stranger = Authority::new().sign_for([uri(JOB)]);
    assert!(!at(Some(&stranger), None).is_let_in().await, "of another authority");
    // As it is set, a token that is bound to nothing is none.
    let loose = at(Some(&client), Some(stage.app.forge().token())).get("/v1/me").await;
    assert_eq!((loose.problem(401), &*loose.events()[0]["reason"]), ("unauthenticated", "binding"));
}

#[tokio::test]
async fn rate_06_who_steals_a_bound_token_uses_up_nothing_of_its_holders() {
    let stage = Stage::public(&[
        ("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"),
        ("APP_THROTTLE__ADDRESS_BURST", "20"),
        ("APP_PENALTY__FREE_FAILURES", "1000"),
        ("APP_PENALTY__FAILURES", "1000"),
    ])
    .await;
    let certificate = stage.authority.sign_for([uri(JOB)]);
    let token = stage.bound_to(&certificate);
    let holder = stage.at(stage.app.address, Some(&certificate), Some(token.clone()));
    holder.get("/v1/me").await.ok(200);
    let thief = stage.at(stage.app.address, None, Some(token));
    eventually("the thief's address is used up", async || thief.get("/v1/me").await.status == 429).await;
    holder.get("/v1/me").await.ok(200);
}

/// On a connection that began before.
#[tokio::test]
async fn authn_18_a_certificate_that_ended_binds_no_more() {
    let stage = Stage::public(&[]).await;
    let soon = SystemTime::from(stage.app.clock.now()) + Duration::from_mins(5);
    let certificate = stage.authority.sign_with([uri(JOB)], |params| params.not_after = soon.into());
    let holder = stage.at(stage.app.address, Some(&certificate), Some(stage.bound_to(&certificate)));
    holder.get("/v1/me").await.ok(200);
    stage.app.clock.advance(Duration::from_mins(6));
    let reply = holder.get("/v1/me").await;
    assert_eq!((reply.problem(401), &*reply.events()[0]["reason"]), ("unauthenticated", "binding"));
}
