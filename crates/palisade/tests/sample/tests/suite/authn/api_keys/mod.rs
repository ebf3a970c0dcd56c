//! API keys (AUTHN-12, AUTHN-13): creation, storage as a hash, rejection of everything that is not
//! an API key, and load by wrong ones.

mod life;
mod many;
mod rights;

use std::time::Duration;

use http::Method;
use palisade::{crypto, model::Clock};
use sample::{
    access::{roles, scopes},
    demo,
};
use serde_json::json;

use crate::support::{
    ACME, Actor, Credential, GLOBEX, SERVICE, ServiceProcess, TestApp, UNTHROTTLED,
    api_keys::{key_text, with_checksum, with_secret},
    authn::{assert_ambiguous, assert_rejected},
    eventually, person, query, run, start_issuer,
};

#[tokio::test]
async fn authn_12_api_key_is_returned_once_and_stored_as_a_hash() {
    let app = SERVICE.start().await;
    let created = app.new_api_key(&[scopes::NOTES_READ]).await;
    let key = key_text(&created).to_owned();
    // Secret scanners search for this documented pattern.
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
                "roles": ["admin"], "scopes": ["notes:read"] })
    );
    program.get(&format!("/v1/notes/{}", demo::FIRST_NOTE)).await.ok(200);

    let secret = key.rsplit_once('_').unwrap().1;
    let listed = app.user(roles::ADMIN).get("/v1/api-keys").await;
    assert!(!listed.text.contains(secret) && !listed.text.contains("argon2"), "{}", listed.text);
    let mut expected = created.clone();
    expected.as_object_mut().unwrap().remove("key");
    assert_eq!(listed.ok(200)["items"], json!([expected]));
    let row = query(&app.database.authn, "select api_keys::text from palisade.api_keys").await.remove(0);
    assert!(row.contains("$argon2id$v=19$m=19456,t=2,p=1$") && !row.contains(secret), "{row}");
    // The logins that serve operations cannot read the hash.
    for login in [&app.database.reader, &app.database.writer, &app.database.auditor] {
        let error = run(login, "select secret_hash from palisade.api_keys").await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{error}");
    }
}

#[tokio::test]
async fn authn_12_api_keys_are_not_logged_and_their_uses_are_written_in_batches() {
    let database = SERVICE.database().await;
    let issuer = start_issuer(Clock::system()).await;
    let serving = ServiceProcess::start(&SERVICE, &TestApp::variables(&database, issuer.url())).await;
    let token = issuer.access_token(&person(&ACME, roles::ADMIN), &scopes::ALL);
    let admin = Actor::new(serving.address, Some(token));
    let body = json!({ "name": "noted", "scopes": ["notes:read"], "validForDays": 1 });
    let created = admin.post("/v1/api-keys", &body).await.ok(201);
    let key = key_text(&created).to_owned();
    let program = Actor::with_credential(serving.address, Some(Credential::ApiKey(key.clone())));
    for _ in 0..20 {
        program.get("/v1/notes").await.ok(200);
    }
    let wrong = Actor::with_credential(serving.address, Some(Credential::ApiKey(with_secret(&key, &"A".repeat(44)))));
    wrong.get("/v1/notes").await.problem(401);
    let last_use = "select coalesce(last_used_at::text, 'never') from palisade.api_keys";
    assert_eq!(query(&database.authn, last_use).await, ["never"]);
    let (_, log) = serving.terminate().await;
    assert_ne!(query(&database.authn, last_use).await, ["never"]);
    let (_, secret) = key.rsplit_once('_').unwrap();
    assert!(!log.contains(&secret[..44]) && !log.contains(&"A".repeat(44)), "{log}");
    assert!(log.contains("api_key_secret") && log.contains(created["id"].as_str().unwrap()), "{log}");
}

#[tokio::test]
async fn authn_12_invalid_api_keys_are_rejected_like_any_credential() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let created = app.new_api_key(&[scopes::NOTES_READ]).await;
    let key = key_text(&created);
    app.api_key(key).get("/v1/notes").await.ok(200);
    let id = key.rsplit_once('_').unwrap().0;
    let tenant_and_id = id.split_once('_').unwrap().1;
    let globex = crypto::base62(GLOBEX.id.uuid().as_u128());
    let mut flipped = key.to_owned().into_bytes();
    let position = flipped.len() - 20;
    flipped[position] = if flipped[position] == b'a' { b'b' } else { b'a' };
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
        ("without a secret", id.to_owned(), "api_key_format"),
        ("empty", String::new(), "api_key_format"),
        ("a secret of another alphabet", with_secret(key, &"-".repeat(44)), "api_key_format"),
        ("an injection", "' or 1=1 --".to_owned(), "api_key_format"),
        ("10 kB", "a".repeat(10_000), "api_key_format"),
    ] {
        let reply = app.api_key(&text).get("/v1/me").await;
        assert_rejected(&reply, case);
        assert_eq!(reply.comparable(), plain.comparable(), "{case}");
        let reasons: Vec<String> = reply.events().into_iter().map(|event| event["reason"].clone()).collect();
        assert_eq!(reasons, [reason], "{case}");
    }
    assert_rejected(&app.bearer(key).get("/v1/me").await, "an API key as a token");
    let anonymous = app.anonymous();
    let request = || anonymous.request(Method::GET, "/v1/notes").header("x-api-key", key);
    for (case, request) in [
        ("twice", request().header("x-api-key", key)),
        ("with a token", request().bearer_auth(app.forge().token())),
        ("with a session cookie", request().header("cookie", "__Host-session=s")),
    ] {
        let reply = anonymous.send(request).await;
        assert_ambiguous(&reply, case);
        assert_eq!(reply.events()[0]["reason"], "two_credentials", "{case}");
    }
}

#[tokio::test]
async fn authn_12_flood_of_wrong_api_keys_does_not_block_valid_callers() {
    let no_rate_limit = [UNTHROTTLED[0], UNTHROTTLED[1]];
    let limits = [("APP_API_KEYS__CONCURRENT_HASHES", "1"), ("APP_DATABASE__MAX_CONNECTIONS", "10")];
    let app = SERVICE.start_with(&[no_rate_limit, limits].concat()).await;
    let mut keys = Vec::new();
    for _ in 0..6 {
        keys.push(app.new_api_key(&[scopes::NOTES_READ]).await);
    }
    let at_other_address = |text: &str| app.api_key(text).at_address(std::net::Ipv4Addr::new(127, 0, 0, 2).into());
    let verified = app.api_key(key_text(&keys[0]));
    verified.get("/v1/notes").await.ok(200);
    let mut flood = tokio::task::JoinSet::new();
    // Fewer than the connections that one address may have.
    for n in 0..200_u32 {
        // Guessing at several API keys is detected later than guessing at one.
        let target = key_text(&keys[n as usize % keys.len()]);
        let wrong = app.api_key(&with_secret(target, &format!("{n:044}")));
        flood.spawn(async move { wrong.get("/v1/notes").await });
    }
    // A verified API key is served at the same address. Others are verified at another address, if
    // need be at a second attempt: hashing threads have a low priority.
    for key in &keys {
        verified.get("/v1/notes").await.ok(200);
        let new = at_other_address(key_text(key));
        eventually("served", async || new.get("/v1/notes").await.status == 200).await;
    }
    let mut answers = std::collections::BTreeMap::new();
    while let Some(reply) = flood.join_next().await {
        *answers.entry(reply.unwrap().status.as_u16()).or_insert(0) += 1;
    }
    // Attempts were hashed (401), found the queue of 16 full (503), or were locked out (429). The
    // numbers depend on the machine, but most attempts must not cost a hash.
    assert!(answers.keys().all(|status| [401, 429, 503].contains(status)), "{answers:?}");
    assert!(answers.get(&401).is_none_or(|hashed| *hashed < 40), "{answers:?}");
    let wrong = app.api_key(&with_secret(key_text(&keys[1]), &format!("{:044}", 300)));
    eventually("the address is locked out", async || wrong.get("/v1/notes").await.status == 429).await;
    app.clock.advance(Duration::from_secs(61));
    // The queue is empty.
    let fresh = app.new_api_key(&[scopes::NOTES_READ]).await;
    let new = app.api_key(key_text(&fresh));
    eventually("served", async || new.get("/v1/notes").await.status == 200).await;
    // A verified API key still works during a lock-out.
    for n in 300..320_u32 {
        app.api_key(&with_secret(key_text(&keys[0]), &format!("{n:044}"))).get("/v1/notes").await;
    }
    verified.get("/v1/notes").await.ok(200);
    app.api_key(key_text(&keys[0])).get("/v1/notes").await.ok(200);
}
