//! A pooler in transaction mode: what works through it (AUTHZ-07, AUTHZ-08), and what the start
//! refuses. docs/pgbouncer.md has the settings.

use std::collections::BTreeMap;

use http::Method;
use palisade::dev::database::Urls;
use sample::access::{roles, scopes};
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::support::{ACME, GLOBEX, PgBouncer, SERVICE, TestApp, UNTHROTTLED, id, note_body, query};

/// The variables that send these logins through the pooler.
fn through(bouncer: &PgBouncer, database: &Urls, logins: &[&str]) -> Vec<(String, String)> {
    let urls = [("WRITER", &database.writer), ("READER", &database.reader), ("KEYS", &database.keys)];
    let urls = urls.into_iter().chain([("AUTHN", &database.authn)]).filter(|(login, _)| logins.contains(login));
    urls.map(|(login, url)| (format!("APP_DATABASE__{login}_URL"), bouncer.url(url).expose_secret().to_owned()))
        .collect()
}

#[tokio::test]
async fn authz_08_pooler_in_transaction_mode_keeps_tenants_apart_and_time_outs_in_force() {
    if PgBouncer::prepares_statements() != Some(true) {
        return;
    }
    let database = SERVICE.database().await;
    let bouncer = PgBouncer::start(&database, true).await.unwrap();
    let urls = through(&bouncer, &database, &["WRITER", "READER", "KEYS"]);
    let mut variables = UNTHROTTLED.to_vec();
    // More than the pooler has connections to the server.
    variables.push(("APP_DATABASE__MAX_CONNECTIONS", "8"));
    variables.extend(urls.iter().map(|(name, url)| (name.as_str(), url.as_str())));
    let app = SERVICE.start_on(database.clone(), &variables).await;
    let work = async |number: usize| {
        let (own, other) = if number.is_multiple_of(2) { (&ACME, &GLOBEX) } else { (&GLOBEX, &ACME) };
        let user = app.user_of(own, roles::ADMIN, &scopes::ALL);
        let mut body = note_body("PAPER-A4", 1);
        body["email"] = json!("ann@example.com");
        let create = async || {
            let request = user.request(Method::POST, "/v1/notes").header("idempotency-key", number.to_string());
            user.send(request.json(&body)).await
        };
        let created = id(&create().await.ok(201));
        assert_eq!(id(&create().await.ok(201)), created);
        let path = format!("/v1/notes/{created}");
        assert_eq!(user.get(&path).await.ok(200)["email"], "ann@example.com");
        user.send(user.request(Method::PATCH, &path).json(&json!({ "remark": "changed" }))).await.ok(200);
        app.user_of(other, roles::ADMIN, &scopes::ALL).get(&path).await.problem(404);
        let page = user.get("/v1/notes?limit=100").await.ok(200);
        assert!(page["items"].as_array().unwrap().iter().any(|note| note["id"] == created.as_str()));
    };
    futures_util::future::join_all((0..24).map(work)).await;
    for (login, url) in [("writer", &database.writer), ("reader", &database.reader), ("keys", &database.keys)] {
        for setting in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"] {
            let current = format!("select current_setting('{setting}')");
            assert_eq!(query(&bouncer.url(url), &current).await, ["5s"], "{setting} of {login}");
        }
    }
}

#[tokio::test]
async fn authz_08_pooler_without_what_a_login_needs_prevents_startup() {
    let database = SERVICE.database().await;
    let error = async |prepares, login: &str| {
        let bouncer = PgBouncer::start(&database, prepares).await?;
        let mut variables: BTreeMap<String, String> = TestApp::variables(&database, "http://127.0.0.1:9");
        variables.extend(through(&bouncer, &database, &[login]));
        Some(SERVICE.try_start(variables).await.unwrap_err())
    };
    for login in ["WRITER", "READER", "KEYS"] {
        let Some(error) = error(false, login).await else { return };
        let expected =
            format!("login app_{} connects through a pooler: it must be PgBouncer 1.21", login.to_lowercase());
        assert!(error.starts_with(&expected), "{error}");
    }
    // LISTEN would end with its transaction, and changes of API keys would be noticed late.
    let error = error(true, "AUTHN").await.unwrap();
    assert!(error.contains("login app_authn connects through a pooler: give its URL the address"), "{error}");
}
