//! What changes around a session: its tenant, the MAC key, the client's secret, and the database
//! (AUTHN-11, AUTHN-14, AUTHN-17, CRYPTO-09, SECRET-04).

use std::{fs, time::Duration};

use http::Method;
use serde_json::json;

use super::{SESSIONS, admin, answers::SignIn, signed_in, start};
use crate::support::{
    ACME, BackupFolder, Browser, SERVICE, TestApp, UNTHROTTLED, assert_succeeds, empty_database, eventually, query,
    run_tenant, scratch_folder,
};

const MAC_KEY: (&str, &str) = ("APP_SECRETS__MAC_KEY", "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=");

/// A browser with the same cookies at another service.
fn at(app: &TestApp, browser: &Browser) -> Browser {
    let mut same = Browser::new(app);
    same.cookies.clone_from(&browser.cookies);
    same
}

#[tokio::test]
async fn authn_11_session_of_a_suspended_tenant_is_refused() {
    let app = start().await;
    let mut browser = signed_in(&app).await;
    let tenant = ACME.id.to_string();
    run_tenant(&app, &["suspend", &tenant]).await.unwrap();
    eventually("the session is refused", async || browser.get("/v1/me").await.status == 403).await;
    let reply = browser.get("/v1/me").await;
    assert_eq!(reply.problem(403), "tenant_suspended");
    assert_eq!(reply.event("authz_fail")["reason"], "tenant_suspended");
    assert_eq!(browser.change(Method::POST, "/auth/refresh").await.problem(403), "tenant_suspended");
    // A person cannot sign in, and can sign out.
    let mut other = Browser::new(&app);
    let authorization = other.begin("/auth/login").await;
    let callback = other.choose(&authorization, &admin()).await;
    assert_eq!(other.get(&callback).await.problem(403), "tenant_suspended");
    assert!(other.cookies.is_empty());
    let kept = browser.clone();
    browser.change(Method::POST, "/auth/logout").await.ok(200);
    run_tenant(&app, &["resume", &tenant]).await.unwrap();
    eventually("people sign in again", async || {
        let mut other = Browser::new(&app);
        let authorization = other.begin("/auth/login").await;
        let callback = other.choose(&authorization, &admin()).await;
        other.get(&callback).await.status == 303
    })
    .await;
    kept.clone().get("/v1/me").await.problem(401);
}

#[tokio::test]
async fn authn_04_sign_in_registers_a_tenant_only_for_an_issuer_that_may() {
    for (create_tenants, status) in [("true", 303), ("false", 403)] {
        let sign_in = SignIn::with(&[("APP_OIDC__CREATE_TENANTS", create_tenants)]).await;
        let tenant = uuid::Uuid::now_v7().to_string();
        let token = sign_in.access_token_with("tenant_id", json!(tenant));
        let (mut browser, reply) = sign_in.run_with(&token).await;
        assert_eq!(reply.status, status, "{reply:#?}");
        if status == 303 {
            assert_eq!(browser.get("/v1/me").await.ok(200)["tenantId"], tenant);
        } else {
            assert_eq!(reply.problem(403), "tenant_unknown");
            assert!(browser.cookies.is_empty());
        }
    }
}

/// An operator who removes an issuer, or its client, wants its people out.
#[tokio::test]
async fn authn_14_session_of_an_issuer_without_a_client_is_refused() {
    let app = SERVICE.start_with(&[&SESSIONS[..], &[MAC_KEY]].concat()).await;
    let browser = signed_in(&app).await;
    let restarted = SERVICE.start_on(app.database.clone(), &[&UNTHROTTLED[..], &[MAC_KEY]].concat()).await;
    assert_eq!(at(&restarted, &browser).get("/v1/me").await.problem(401), "unauthenticated");
    at(&app, &browser).get("/v1/me").await.ok(200);
}

/// With another MAC key, every browser has a cookie that cannot be parsed.
#[tokio::test]
async fn authn_17_cookie_of_another_mac_key_ends_and_locks_no_network_out() {
    let limit = [("APP_FAILURE_LIMIT__FREE_FAILURES", "0"), ("APP_FAILURE_LIMIT__MAX_FAILURES", "3")];
    let settings = [&SESSIONS[..2], &SESSIONS[4..], &limit].concat();
    let app = SERVICE.start_with(&settings).await;
    let browser = signed_in(&app).await;
    let restarted = SERVICE.start_on(app.database.clone(), &settings).await;
    for _ in 0..5 {
        let mut stale = at(&restarted, &browser);
        let reply = stale.get("/v1/me").await;
        assert_eq!(reply.problem(401), "unauthenticated");
        assert_eq!(reply.event("authn_token_invalid")["reason"], "session_unknown");
        stale.get("/auth/session").await.problem(401);
        assert!(stale.cookies.is_empty(), "the browser keeps a cookie that is of no use");
    }
    Browser::new(&restarted).sign_in(&admin()).await;
}

#[tokio::test]
async fn secret_04_changed_client_secret_is_used_without_a_restart() {
    let file = scratch_folder().join(format!("client-secret-{}", uuid::Uuid::now_v7()));
    fs::write(&file, "the first secret").unwrap();
    let file_name = file.to_str().unwrap();
    let sign_in =
        SignIn::with(&[("APP_SESSIONS__CLIENT_SECRET_FILE", file_name), ("APP_SECRETS__RELOAD_INTERVAL_MS", "100")])
            .await;
    let secrets = async || {
        sign_in.browser().await;
        sign_in.issuer.token_credentials()
    };
    assert_eq!(secrets().await, ["the+first+secret"]);
    fs::write(&file, "the second secret").unwrap();
    eventually("the second secret is used", async || {
        secrets().await.last().is_some_and(|secret| secret == "the+second+secret")
    })
    .await;
}

/// What ended after the backup must not live again.
#[tokio::test]
async fn crypto_09_restore_brings_back_no_session() {
    let settings = [&SESSIONS[..], &[MAC_KEY]].concat();
    let app = SERVICE.start_with(&settings).await;
    let mut signed_out = signed_in(&app).await;
    let live = signed_in(&app).await;
    let backups = BackupFolder::new().await;
    assert_succeeds(&backups.backup(&app.database.backup, "backup.age", "keys.age"));
    let thief = signed_out.clone();
    signed_out.change(Method::POST, "/auth/logout").await.ok(200);
    let target = empty_database().await;
    assert_succeeds(&backups.restore(&target, &["--keys", "keys.age", "backup.age"]));
    assert_eq!(query(&target.owner, "select count(*)::text from palisade.tenants").await.len(), 1);
    let issuer = ("APP_OIDC__ISSUER", app.issuer.url());
    let restored = SERVICE.start_on(target, &[&settings[..], &[issuer]].concat()).await;
    for browser in [&thief, &live] {
        let mut browser = at(&restored, browser);
        assert_eq!(browser.get("/auth/session").await.problem(401), "unauthenticated");
        assert!(browser.cookies.is_empty());
    }
    app.clock.advance(Duration::from_secs(1));
    at(&app, &live).get("/v1/me").await.ok(200);
}
