//! Keys by which programs call for a person.

mod life;
mod many;
mod rights;

use std::time::Duration;

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use service::{
    authz::{matrix::Scope, policy::Role},
    crypto,
    dev::{database::Urls, demo},
    domain::Clock,
};
use sqlx::Connection as _;

use super::assert_refused;
use crate::support::{
    ACME, Actor, Credential, GLOBEX, Reply, Serving, TestApp, UNTHROTTLED, eventually, person, query, run,
    start_issuer, test_database,
};

fn text(created: &Value) -> &str {
    created["key"].as_str().unwrap()
}

fn path(created: &Value) -> String {
    format!("/v1/api-keys/{}", created["id"].as_str().unwrap())
}

async fn delete(actor: &Actor, path: &str) -> Reply {
    actor.send(actor.request(Method::DELETE, path)).await
}

/// A key's text with another secret, and the checksum that goes with it, which anybody can make.
pub(super) fn with_secret(text: &str, secret: &str) -> String {
    let (id, _) = text.rsplit_once('_').unwrap();
    with_checksum(&format!("{id}_{secret}"))
}

fn with_checksum(text: &str) -> String {
    let sum = crypto::sha256(text.as_bytes());
    let digits = crypto::base62(u128::from(u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]])));
    format!("{text}{}", &digits[16..])
}

/// Notes a revocation as an operator.
async fn revoke_at(database: &Urls, kind: &str, value: &str) {
    let mut operator = sqlx::PgConnection::connect(database.operator.expose_secret()).await.unwrap();
    let note = "select note_revocation($1, $2, now(), 'a test')";
    sqlx::query(note).bind(kind).bind(value).execute(&mut operator).await.unwrap();
    sqlx::query("select pg_notify('revocations', '')").execute(&mut operator).await.unwrap();
}

/// The same, and waits until the replica knows.
async fn revoke(app: &TestApp, kind: &str, value: &str) {
    revoke_at(&app.database, kind, value).await;
    // As long as it may take.
    let jti = uuid::Uuid::now_v7().to_string();
    // Of nobody whose keys are looked at: what this token says of roles would count for them.
    let known = app.bearer(app.forge().claim("sub", "whose token is revoked").claim("jti", &*jti).token());
    revoke_at(&app.database, "token", &jti).await;
    eventually("the revocation is known", async || known.get("/v1/me").await.status == 401).await;
}

#[tokio::test]
async fn authn_12_a_key_is_shown_once_and_stored_as_a_hash() {
    let app = TestApp::start().await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    let key = text(&created).to_owned();
    // The documented pattern, for scanners of secrets.
    let service: String = env!("CARGO_PKG_NAME").chars().filter(char::is_ascii_alphanumeric).collect();
    let pattern = regex::Regex::new(&format!("^{service}_[0-9A-Za-z]{{44}}_[0-9A-Za-z]{{50}}$")).unwrap();
    assert!(pattern.is_match(&key), "{key}");
    let (unchecked, _) = key.split_at(key.len() - 6);
    assert_eq!(with_checksum(unchecked), key);

    let program = app.api_key(&key);
    let me = program.get("/v1/me").await.ok(200);
    let subject = format!("api-key:{}", created["id"].as_str().unwrap());
    assert_eq!(
        me,
        json!({ "subject": subject, "clientId": subject, "kind": "apiKey", "tenantId": ACME.id.to_string(),
                "roles": ["admin"], "scopes": ["orders:read"] })
    );
    program.get(&format!("/v1/orders/{}", demo::FIRST_ORDER)).await.ok(200);

    let secret = key.rsplit_once('_').unwrap().1;
    let listed = app.user(Role::Admin).get("/v1/api-keys").await;
    assert!(!listed.text.contains(secret) && !listed.text.contains("argon2"), "{}", listed.text);
    let mut expected = created.clone();
    expected.as_object_mut().unwrap().remove("key");
    assert_eq!(listed.ok(200)["items"], json!([expected]));
    let row = query(&app.database.authn, "select api_keys::text from api_keys").await.remove(0);
    assert!(row.contains("$argon2id$v=19$m=19456,t=2,p=1$") && !row.contains(secret), "{row}");
    // Not even whoever serves operations can read the hash.
    for login in [&app.database.reader, &app.database.writer, &app.database.auditor] {
        let error = run(login, "select secret_hash from api_keys").await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{error}");
    }
}

#[tokio::test]
async fn authn_12_the_key_is_in_no_log_line_and_its_use_is_noted_without_a_write_each() {
    let database = test_database().await;
    let issuer = start_issuer(Clock::system()).await;
    let serving = Serving::start(&TestApp::variables(&database, issuer.url())).await;
    let token = issuer.access_token(&person(&ACME, Role::Admin), &Scope::ALL);
    let admin = Actor::new(serving.address, Some(token));
    let body = json!({ "name": "noted", "scopes": ["orders:read"], "validForDays": 1 });
    let created = admin.post("/v1/api-keys", &body).await.ok(201);
    let key = text(&created).to_owned();
    let program = Actor::with(serving.address, Some(Credential::ApiKey(key.clone())));
    for _ in 0..20 {
        program.get("/v1/orders").await.ok(200);
    }
    let wrong = Actor::with(serving.address, Some(Credential::ApiKey(with_secret(&key, &"A".repeat(44)))));
    wrong.get("/v1/orders").await.problem(401);
    let used = "select coalesce(last_used_at::text, 'never') from api_keys";
    assert_eq!(query(&database.authn, used).await, ["never"]);
    let (_, log) = serving.terminate().await;
    assert_ne!(query(&database.authn, used).await, ["never"]);
    let (_, secret) = key.rsplit_once('_').unwrap();
    assert!(!log.contains(&secret[..44]) && !log.contains(&"A".repeat(44)), "{log}");
    assert!(log.contains("api_key_secret") && log.contains(created["id"].as_str().unwrap()), "{log}");
}

#[tokio::test]
async fn authn_12_what_is_not_a_key_is_refused_like_any_credential() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    let key = text(&created);
    app.api_key(key).get("/v1/orders").await.ok(200);
    let id = key.rsplit_once('_').unwrap().0;
    let tenant_and_id = id.split_once('_').unwrap().1;
    let globex = crypto::base62(GLOBEX.id.uuid().as_u128());
    let mut flipped = key.to_owned().into_bytes();
    let place = flipped.len() - 20;
    flipped[place] = if flipped[place] == b'a' { b'b' } else { b'a' };
    let service = id.split_once('_').unwrap().0;
    let secret = &key.rsplit_once('_').unwrap().1[..44];
    let foreign = format!("{service}_{globex}{}_{secret}", &tenant_and_id[22..]);
    let unknown = format!("{}{}_{}", &id[..id.len() - 22], crypto::base62(7), "A".repeat(44));
    let plain = app.bearer("e30.e30.e30").get("/v1/me").await;
    for (case, text, reason) in [
        ("another secret", with_secret(key, &"A".repeat(44)), "api_key_secret"),
        ("another tenant's", with_checksum(&foreign), "api_key_unknown"),
        ("no such key", with_checksum(&unknown), "api_key_unknown"),
        ("a typo", String::from_utf8(flipped).unwrap(), "api_key_format"),
        ("upper case", key.to_uppercase(), "api_key_format"),
        ("a character more", format!("{key}0"), "api_key_format"),
        ("the id alone", id.to_owned(), "api_key_format"),
        ("empty", String::new(), "api_key_format"),
        ("a secret of another alphabet", with_secret(key, &"-".repeat(44)), "api_key_format"),
        ("an injection", "' or 1=1 --".to_owned(), "api_key_format"),
        ("10 kB", "a".repeat(10_000), "api_key_format"),
    ] {
        let reply = app.api_key(&text).get("/v1/me").await;
        assert_refused(&reply, case);
        assert_eq!(reply.comparable(), plain.comparable(), "{case}");
        let told: Vec<String> = reply.events().into_iter().map(|event| event["reason"].clone()).collect();
        assert_eq!(told, [reason], "{case}");
    }
    assert_refused(&app.bearer(key).get("/v1/me").await, "a key as a token");
    let anonymous = app.anonymous();
    let request = || anonymous.request(Method::GET, "/v1/orders").header("x-api-key", key);
    for (case, request) in [
        ("twice", request().header("x-api-key", key)),
        ("with a token", request().bearer_auth(app.forge().token())),
        ("with a session cookie", request().header("cookie", "__Host-session=s")),
    ] {
        let reply = anonymous.send(request).await;
        assert_refused(&reply, case);
        assert_eq!(reply.events()[0]["reason"], "two_credentials", "{case}");
    }
}

#[tokio::test]
async fn authn_12_a_flood_of_wrong_keys_is_turned_away_and_honest_callers_are_served() {
    let throttle = [UNTHROTTLED[0], UNTHROTTLED[1]];
    let more = [("APP_API_KEYS__CONCURRENT_HASHES", "1"), ("APP_DATABASE__MAX_CONNECTIONS", "10")];
    let app = TestApp::start_with(&[throttle, more].concat()).await;
    let mut keys = Vec::new();
    for _ in 0..6 {
        keys.push(app.new_api_key(&[Scope::OrdersRead]).await);
    }
    let elsewhere = |text: &str| app.api_key(text).at_address(std::net::Ipv4Addr::new(127, 0, 0, 2).into());
    let known = app.api_key(text(&keys[0]));
    known.get("/v1/orders").await.ok(200);
    let mut flood = tokio::task::JoinSet::new();
    // Fewer than an address may have connections.
    for n in 0..200_u32 {
        // At several keys, which is noticed later than guessing at one.
        let target = text(&keys[n as usize % keys.len()]);
        let wrong = app.api_key(&with_secret(target, &format!("{n:044}")));
        flood.spawn(async move { wrong.get("/v1/orders").await });
    }
    // A key that was used before is served, from the same address; one that has to be hashed first, from another
    // address, perhaps at a second try: hashing takes what processor time nothing else wants.
    for key in &keys {
        known.get("/v1/orders").await.ok(200);
        let new = elsewhere(text(key));
        eventually("served", async || new.get("/v1/orders").await.status == 200).await;
    }
    let mut answers = std::collections::BTreeMap::new();
    while let Some(reply) = flood.join_next().await {
        *answers.entry(reply.unwrap().status.as_u16()).or_insert(0) += 1;
    }
    // Some were hashed; then the address was shut out; and no more than 16 ever waited. How many each,
    // is a matter of the machine's speed, but not that most cost no hash.
    assert!(answers.keys().all(|status| [401, 429, 503].contains(status)), "{answers:?}");
    assert!(answers.get(&401).is_none_or(|hashed| *hashed < 40), "{answers:?}");
    let wrong = app.api_key(&with_secret(text(&keys[1]), &format!("{:044}", 300)));
    eventually("the address is shut out", async || wrong.get("/v1/orders").await.status == 429).await;
    app.clock.advance(Duration::from_secs(61));
    // Everybody has left the queue.
    let fresh = app.new_api_key(&[Scope::OrdersRead]).await;
    let new = app.api_key(text(&fresh));
    eventually("served", async || new.get("/v1/orders").await.status == 200).await;
    // What was right before is no guess, wherever it comes from.
    for n in 300..320_u32 {
        app.api_key(&with_secret(text(&keys[0]), &format!("{n:044}"))).get("/v1/orders").await;
    }
    known.get("/v1/orders").await.ok(200);
    app.api_key(text(&keys[0])).get("/v1/orders").await.ok(200);
}
