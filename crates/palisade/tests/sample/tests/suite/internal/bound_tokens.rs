//! Certificate-bound tokens (RFC 8705): they work for the holder of the certificate only
//! (AUTHN-18), and do not share its rate limit with thieves (RATE-06).

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::support::{
    Actor, Authority, SERVICE, eventually,
    mtls::{JOB, MtlsSetup, thumbprint, uri},
};

#[tokio::test]
async fn authn_18_bound_token_works_only_with_its_certificate() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[]).await;
    let job = setup.authority.sign_for([uri(JOB)]);
    let other = setup.authority.sign_for([uri(JOB)]);
    let token = setup.token_bound_to(&job);
    let assert_rejected = async |actor: Actor, case: &str| {
        let reply = actor.get("/v1/me").await;
        assert_eq!(reply.problem(401), "unauthenticated", "{case}");
        assert_eq!(reply.events()[0]["reason"], "binding", "{case}");
    };
    // Before and after the token is cached.
    for _ in 0..2 {
        assert_rejected(setup.client(&other, Some(token.clone())), "another certificate of the same name").await;
        assert_rejected(setup.app.bearer(token.clone()), "no certificate").await;
        assert_eq!(setup.client(&job, Some(token.clone())).get("/v1/me").await.ok(200)["kind"], "user");
    }
    let digest = thumbprint(&job.0);
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
        let token = setup.app.forge().claim("cnf", cnf.clone()).token();
        assert_rejected(setup.client(&job, Some(token)), &cnf.to_string()).await;
    }
}

/// On the public listener, a certificate alone is no credential.
#[tokio::test]
async fn authn_18_public_listener_verifies_token_binding() {
    let setup = MtlsSetup::public(&SERVICE, &[("APP_OIDC__REQUIRE_BOUND_TOKENS", "true")]).await;
    let client_with = |certificate: Option<&(String, String)>, token: Option<String>| {
        setup.client_at(setup.app.address, certificate, token)
    };
    let client = setup.authority.sign_for([uri(JOB)]);
    let token = setup.token_bound_to(&client);
    client_with(Some(&client), Some(token.clone())).get("/v1/me").await.ok(200);
    client_with(None, Some(token.clone())).get("/v1/me").await.problem(401);
    client_with(Some(&client), None).get("/v1/me").await.problem(401);
    client_with(Some(&client), None).get("/metrics").await.problem(404);
    client_with(None, None).get("/health/live").await.ok(200);
    let stranger = Authority::new().sign_for([uri(JOB)]);
    assert!(!client_with(Some(&stranger), None).can_connect().await, "of another authority");
    // With this setting, unbound tokens are rejected.
    let unbound = client_with(Some(&client), Some(setup.app.forge().token())).get("/v1/me").await;
    assert_eq!((unbound.problem(401), &*unbound.events()[0]["reason"]), ("unauthenticated", "binding"));
}

#[tokio::test]
async fn rate_06_stolen_bound_token_does_not_exhaust_the_limit_of_its_holder() {
    let setup = MtlsSetup::public(
        &SERVICE,
        &[
            ("APP_THROTTLE__ADDRESS_PER_SECOND", "0.02"),
            ("APP_THROTTLE__ADDRESS_BURST", "20"),
            ("APP_FAILURE_LIMIT__FREE_FAILURES", "1000"),
            ("APP_FAILURE_LIMIT__MAX_FAILURES", "1000"),
        ],
    )
    .await;
    let certificate = setup.authority.sign_for([uri(JOB)]);
    let token = setup.token_bound_to(&certificate);
    let holder = setup.client_at(setup.app.address, Some(&certificate), Some(token.clone()));
    holder.get("/v1/me").await.ok(200);
    let thief = setup.client_at(setup.app.address, None, Some(token));
    eventually("the rate limit of the thief's address is exhausted", async || thief.get("/v1/me").await.status == 429)
        .await;
    holder.get("/v1/me").await.ok(200);
}

/// The connection begins before the certificate expires.
#[tokio::test]
async fn authn_18_bound_token_is_rejected_after_its_certificate_expires() {
    let setup = MtlsSetup::public(&SERVICE, &[]).await;
    let soon = SystemTime::from(setup.app.clock.now()) + Duration::from_mins(5);
    let certificate = setup.authority.sign_with([uri(JOB)], |params| params.not_after = soon.into());
    let holder = setup.client_at(setup.app.address, Some(&certificate), Some(setup.token_bound_to(&certificate)));
    holder.get("/v1/me").await.ok(200);
    setup.app.clock.advance(Duration::from_mins(6));
    let reply = holder.get("/v1/me").await;
    assert_eq!((reply.problem(401), &*reply.events()[0]["reason"]), ("unauthenticated", "binding"));
}
