//! Keys by which programs call for a person.

use std::time::{Duration, Instant};

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use service::{
    authz::{
        matrix::{Callers, MATRIX, Scope},
        policy::Role,
    },
    crypto,
    dev::demo,
    domain::Clock,
};
use sqlx::Connection as _;

use super::assert_refused;
use crate::support::{
    ACME, Actor, GLOBEX, Serving, TestApp, UNTHROTTLED, person, query, run, start_issuer, superuser, test_database,
};

/// As in the tests of revocation: two seconds are stated, a busy machine gets more.
const BOUND: Duration = Duration::from_secs(15);

fn text(created: &Value) -> &str {
    created["key"].as_str().unwrap()
}

fn path(created: &Value) -> String {
    format!("/v1/api-keys/{}", created["id"].as_str().unwrap())
}

async fn delete(actor: &Actor, path: &str) -> crate::support::Reply {
    actor.send(actor.request(Method::DELETE, path)).await
}

/// A key's text with another secret, and the checksum that goes with it, which anybody can make.
fn with_secret(text: &str, secret: &str) -> String {
    let (id, _) = text.rsplit_once('_').unwrap();
    with_checksum(&format!("{id}_{secret}"))
}

fn with_checksum(text: &str) -> String {
    let sum = crypto::sha256(text.as_bytes());
    let digits = crypto::base62(u128::from(u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]])));
    format!("{text}{}", &digits[16..])
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
    let program = Actor::with(serving.address, Some(crate::support::Credential::ApiKey(key.clone())));
    for _ in 0..20 {
        program.get("/v1/orders").await.ok(200);
    }
    let wrong =
        Actor::with(serving.address, Some(crate::support::Credential::ApiKey(with_secret(&key, &"A".repeat(44)))));
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
async fn authn_12_a_key_gets_no_more_than_its_maker_has() {
    let app = TestApp::start().await;
    let maker = app.user_of(&ACME, Role::Admin, &[Scope::KeysManage, Scope::OrdersRead, Scope::BillingRefund]);
    let make = async |scopes: Value, days: i64| {
        maker.post("/v1/api-keys", &json!({ "name": "n", "scopes": scopes, "validForDays": days })).await
    };
    for (scopes, days, faults) in [
        (json!(["orders:write"]), 1, vec!["/scopes/0 not_yours"]),
        (
            json!(["orders:read", "billing:refund", "keys:manage"]),
            1,
            vec!["/scopes/1 not_for_api_keys", "/scopes/2 not_for_api_keys"],
        ),
        (json!(["orders:read", "orders:read"]), 1, vec!["/scopes/1 duplicate"]),
        (json!(["orders:delete"]), 1, vec!["/scopes/0 unknown_scope"]),
        (json!(["*"]), 1, vec!["/scopes/0 format"]),
        (json!([]), 1, vec!["/scopes too_few"]),
        (json!(["orders:read"]), 0, vec!["/validForDays too_small"]),
        // More than the 90 days that the service allows, and more than there can be.
        (json!(["orders:read"]), 91, vec!["/validForDays too_large"]),
        (json!(["orders:read"]), 366, vec!["/validForDays too_large"]),
    ] {
        let reply = make(scopes, days).await;
        assert_eq!(reply.problem(400), "invalid_input");
        assert_eq!(reply.faults(), faults);
    }
    let without_end = json!({ "name": "n", "scopes": ["orders:read"] });
    assert_eq!(maker.post("/v1/api-keys", &without_end).await.faults(), ["/validForDays required"]);
    make(json!(["orders:read"]), 90).await.ok(201);
    for role in [Role::Viewer, Role::Sales, Role::Billing, Role::Auditor] {
        let body = json!({ "name": "n", "scopes": ["orders:read"], "validForDays": 1 });
        assert_eq!(app.user(role).post("/v1/api-keys", &body).await.problem(403), "forbidden", "{role:?}");
    }
}

#[tokio::test]
async fn authn_12_a_key_can_do_no_more_than_its_maker_may_now() {
    let app = TestApp::start().await;
    let created = app.new_api_key(&[Scope::OrdersRead, Scope::OrdersWrite]).await;
    let program = app.api_key(text(&created));
    let order = json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 1 }], "shippingSpeed": "standard" });
    let place = async || program.post("/v1/orders", &order).await;
    let by = place().await.ok(201)["createdBy"].clone();
    assert_eq!(by, format!("api-key:{}", created["id"].as_str().unwrap()));
    assert_eq!(program.get("/v1/customers").await.problem(403), "insufficient_scope");

    // The next token of whoever made it says that they are a viewer now.
    let maker = |roles: Value| app.bearer(app.forge().claim("roles", roles).token());
    let stale = maker(json!(["admin"]));
    let until = async |path: &str, status: u16| {
        let started = Instant::now();
        let ask = async || if path == "place" { place().await } else { program.get(path).await };
        while ask().await.status != status {
            assert!(started.elapsed() < BOUND, "no {status} in time");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    app.clock.advance(Duration::from_secs(1));
    maker(json!(["viewer"])).get("/v1/me").await.ok(200);
    until("place", 403).await;
    program.get("/v1/orders").await.ok(200);
    // An older token changes nothing, though it is good still and seen for the first time.
    stale.get("/v1/me").await.ok(200);
    app.api_key(text(&created)).get("/v1/orders").await.ok(200);
    assert_eq!(roles_of(&app).await, ["{viewer}"]);
    // One that names no roles gives none.
    for none in [Value::Null, json!([])] {
        app.clock.advance(Duration::from_secs(1));
        maker(none).get("/v1/me").await.ok(200);
        until("/v1/orders", 403).await;
        app.clock.advance(Duration::from_secs(1));
        maker(json!(["admin"])).get("/v1/me").await.ok(200);
        until("place", 201).await;
    }
    // The same roles again are newer all the same.
    let stale = maker(json!(["viewer"]));
    app.clock.advance(Duration::from_secs(1));
    maker(json!(["admin"])).get("/v1/me").await.ok(200);
    stale.get("/v1/me").await.ok(200);
    assert_eq!(roles_of(&app).await, ["{admin}"]);
    // Another person's roles are nothing to it.
    app.user(Role::Viewer).get("/v1/me").await.ok(200);
    place().await.ok(201);
}

/// What the maker of the one key may do, as it is stored.
async fn roles_of(app: &TestApp) -> Vec<String> {
    query(&app.database.authn, "select creator_roles::text from api_keys").await
}

#[tokio::test]
async fn authn_12_a_revoked_token_leaves_no_trace_in_keys() {
    let app = TestApp::start().await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    app.clock.advance(Duration::from_secs(1));
    let stolen = app.bearer(app.forge().claim("jti", "stolen").claim("roles", json!(["viewer"])).token());
    revoke(&app, "token", "stolen").await;
    assert_refused(&stolen.get("/v1/me").await, "revoked");
    assert_eq!(roles_of(&app).await, ["{admin}"]);
    app.api_key(text(&created)).get("/v1/orders").await.ok(200);
}

/// Notes a revocation as an operator, and waits until the replica knows.
async fn revoke(app: &TestApp, kind: &str, value: &str) {
    let mut operator = sqlx::PgConnection::connect(app.database.operator.expose_secret()).await.unwrap();
    let note = "select note_revocation($1, $2, now(), 'a test')";
    sqlx::query(note).bind(kind).bind(value).execute(&mut operator).await.unwrap();
    // As long as it may take.
    let known = app.bearer(app.forge().claim("jti", "known").token());
    sqlx::query(note).bind("token").bind("known").execute(&mut operator).await.unwrap();
    let started = Instant::now();
    while known.get("/v1/me").await.status != 401 {
        assert!(started.elapsed() < BOUND, "not known in time");
    }
}

/// However fast whoever has a stolen token makes keys by it: they end with it.
#[tokio::test]
async fn authn_12_a_key_made_by_a_revoked_credential_ends_with_it() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let stolen = app.forge().claim("sub", "thief").token();
    let body = json!({ "name": "kept", "scopes": ["orders:read"], "validForDays": 30 });
    app.clock.advance(Duration::from_mins(5));
    let made = app.bearer(stolen.clone()).post("/v1/api-keys", &body).await.ok(201);
    app.clock.advance(Duration::from_secs(1));
    let rotated = app.bearer(stolen).post(&format!("{}/rotate", path(&made)), &json!({ "validForDays": 30 })).await;
    let rotated = rotated.ok(201);
    // Up to now: the keys were made minutes later by the clock of the service.
    revoke(&app, "subject", "thief").await;
    for key in [&made, &rotated] {
        assert_refused(&app.api_key(text(key)).get("/v1/orders").await, "made by a revoked token");
    }
}

#[tokio::test]
async fn authn_12_a_key_ends_when_it_says_also_if_it_was_just_used() {
    let app = TestApp::start().await;
    let body = json!({ "name": "short", "scopes": ["orders:read"], "validForDays": 1 });
    let created = app.user(Role::Admin).post("/v1/api-keys", &body).await.ok(201);
    let program = app.api_key(text(&created));
    app.clock.advance(Duration::from_secs(24 * 3_600 - 20));
    program.get("/v1/orders").await.ok(200);
    app.clock.advance(Duration::from_secs(20));
    let reply = program.get("/v1/orders").await;
    assert_refused(&reply, "ended");
    assert_eq!(reply.events()[0]["reason"], "expired");
}

#[tokio::test]
async fn authn_12_a_revoked_key_ends_at_once_here_and_everywhere() {
    let database = test_database().await;
    let here = TestApp::start_on(database.clone(), &[]).await;
    // The same pepper, as replicas have it.
    let created = here.new_api_key(&[Scope::OrdersRead]).await;
    let there = TestApp::start_on(database, &[("APP_SECRETS__PEPPER", here.pepper.as_str())]).await;
    let (at_home, abroad) = (here.api_key(text(&created)), there.api_key(text(&created)));
    for program in [&at_home, &abroad] {
        program.get("/v1/orders").await.ok(200);
    }
    let admin = here.user(Role::Admin);
    assert_eq!(delete(&admin, &path(&created)).await.status, 204);
    let reply = at_home.get("/v1/orders").await;
    assert_refused(&reply, "at once");
    assert_eq!(reply.events()[0]["event"], "authn_token_reuse");
    let started = Instant::now();
    while abroad.get("/v1/orders").await.status != 401 {
        assert!(started.elapsed() < BOUND, "the other replica still accepts it");
    }
    // Once more changes nothing, and nothing brings it back.
    let listed = admin.get("/v1/api-keys").await.ok(200);
    assert_eq!(delete(&admin, &path(&created)).await.status, 204);
    assert_eq!(admin.get("/v1/api-keys").await.ok(200), listed);
    let back = format!("set local app.tenant_id = '{}'; update api_keys set revoked_at = null", ACME.id);
    let error = run(&here.database.writer, &back).await.unwrap_err().to_string();
    assert!(error.contains("does not come back"), "{error}");
    let rotate = json!({ "validForDays": 1 });
    assert_eq!(admin.post(&format!("{}/rotate", path(&created)), &rotate).await.problem(409), "conflict");
}

#[tokio::test]
async fn authn_12_who_loses_everything_loses_their_keys_too() {
    for arguments in [["subject", "admin@acme.example"], ["tenant", &ACME.id.to_string()], ["everything", ""]] {
        let app = TestApp::start().await;
        let created = app.new_api_key(&[Scope::OrdersRead]).await;
        let program = app.api_key(text(&created));
        program.get("/v1/orders").await.ok(200);
        revoke(&app, arguments[0], arguments[1]).await;
        assert_refused(&program.get("/v1/orders").await, arguments[0]);
        // For as long as it could have lived.
        app.clock.advance(Duration::from_hours(29 * 24));
        assert_refused(&program.get("/v1/orders").await, arguments[0]);
    }
}

#[tokio::test]
async fn authn_12_a_key_is_rotated_with_overlap() {
    let app = TestApp::start().await;
    let old = app.new_api_key(&[Scope::OrdersRead]).await;
    let admin = app.user(Role::Admin);
    let rotate = |id: &Value, overlap: i64| {
        let body = json!({ "validForDays": 30, "overlapHours": overlap });
        admin.request(Method::POST, &format!("{}/rotate", path(id))).json(&body)
    };
    let new = admin.send(rotate(&old, 2)).await.ok(201);
    assert_eq!((&new["replaces"], &new["scopes"], &new["name"]), (&old["id"], &old["scopes"], &old["name"]));
    let (with_old, with_new) = (app.api_key(text(&old)), app.api_key(text(&new)));
    for program in [&with_old, &with_new] {
        program.get("/v1/orders").await.ok(200);
    }
    // Rotating again, as after an answer that was lost, does not make the old one live longer, nor end sooner.
    let again = admin.send(rotate(&old, 100)).await.ok(201);
    app.api_key(text(&again)).get("/v1/orders").await.ok(200);
    with_old.get("/v1/orders").await.ok(200);
    app.clock.advance(Duration::from_secs(2 * 3_600 + 1));
    assert_refused(&with_old.get("/v1/orders").await, "after the overlap");
    with_new.get("/v1/orders").await.ok(200);
    let admin = app.user(Role::Admin);
    let ended = admin.request(Method::POST, &format!("{}/rotate", path(&old))).json(&json!({ "validForDays": 1 }));
    assert_eq!(admin.send(ended).await.problem(409), "conflict");
    // At once, if there shall be none.
    let body = json!({ "validForDays": 1, "overlapHours": 0 });
    let last = admin.post(&format!("{}/rotate", path(&new)), &body).await.ok(201);
    assert_refused(&with_new.get("/v1/orders").await, "without overlap");
    app.api_key(text(&last)).get("/v1/orders").await.ok(200);
    // Nobody gets a key out of it that they could not have made.
    let narrow = app.user_of(&ACME, Role::Admin, &[Scope::KeysManage]);
    let path = format!("{}/rotate", path(&last));
    assert_eq!(narrow.post(&path, &json!({ "validForDays": 1 })).await.problem(403), "forbidden");
    assert_eq!(admin.post(&path, &json!({ "validForDays": 91 })).await.faults(), ["/validForDays too_large"]);
}

#[tokio::test]
async fn authn_13_what_is_closed_to_keys_stays_closed_whatever_a_key_says_it_may() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let created = app.new_api_key(&[Scope::OrdersRead]).await;
    let all: Vec<String> = Scope::ALL.iter().map(|scope| format!("'{}'", scope.as_str())).collect();
    let widen = format!("update api_keys set scopes = array[{}]", all.join(", "));
    sqlx::raw_sql(sqlx::AssertSqlSafe(widen)).execute(&mut superuser(&app.database).await).await.unwrap();
    let program = app.api_key(text(&created));
    let closed: Vec<_> = MATRIX.iter().filter(|row| row.callers == Callers::NoKeys).collect();
    let names: Vec<&str> = closed.iter().map(|row| row.operation).collect();
    assert_eq!(
        names,
        ["eraseCustomer", "createRefund", "createApiKey", "listApiKeys", "rotateApiKey", "revokeApiKey"],
        "what keys may not do has changed"
    );
    for row in closed {
        let path = row.path.replace("{id}", &demo::FIRST_CUSTOMER.to_string());
        let method = Method::from_bytes(row.method.as_str().as_bytes()).unwrap();
        let reply = program.send(program.request(method, &path).json(&json!({}))).await;
        assert_eq!(reply.problem(403), "forbidden", "{}", row.operation);
        let event = &reply.events()[0];
        assert_eq!((event["event"].as_str(), event["reason"].as_str()), ("authz_fail", "api_key"), "{}", row.operation);
    }
    program.get("/v1/customers").await.ok(200);
}

#[tokio::test]
async fn authn_12_a_flood_of_wrong_keys_is_turned_away_and_honest_callers_are_served() {
    let throttle = [UNTHROTTLED[0], UNTHROTTLED[1]];
    let app = TestApp::start_with(&[&throttle[..], &[("APP_API_KEYS__CONCURRENT_HASHES", "1")]].concat()).await;
    let mut keys = Vec::new();
    for _ in 0..6 {
        keys.push(app.new_api_key(&[Scope::OrdersRead]).await);
    }
    let elsewhere = |text: &str| app.api_key(text).at_address(std::net::Ipv4Addr::new(127, 0, 0, 2).into());
    let known = app.api_key(text(&keys[0]));
    known.get("/v1/orders").await.ok(200);
    let mut flood = tokio::task::JoinSet::new();
    for n in 0..300_u32 {
        // At several keys, which is noticed later than guessing at one.
        let target = text(&keys[n as usize % keys.len()]);
        let wrong = app.api_key(&with_secret(target, &format!("{n:044}")));
        flood.spawn(async move { wrong.get("/v1/orders").await });
    }
    // Who was here before is served, from the same address; who comes for the first time, from another.
    for key in &keys {
        known.get("/v1/orders").await.ok(200);
        elsewhere(text(key)).get("/v1/orders").await.ok(200);
    }
    let mut answers = std::collections::BTreeMap::new();
    while let Some(reply) = flood.join_next().await {
        *answers.entry(reply.unwrap().status.as_u16()).or_insert(0) += 1;
    }
    // Some were hashed; then the address was shut out; and no more than 16 ever waited.
    assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [401, 429, 503], "{answers:?}");
    assert!(answers[&401] < 40, "{answers:?}");
    app.clock.advance(Duration::from_secs(61));
    // Everybody has left the queue.
    let fresh = app.new_api_key(&[Scope::OrdersRead]).await;
    app.api_key(text(&fresh)).get("/v1/orders").await.ok(200);
    // What was right before is no guess, wherever it comes from.
    for n in 300..320_u32 {
        app.api_key(&with_secret(text(&keys[0]), &format!("{n:044}"))).get("/v1/orders").await;
    }
    known.get("/v1/orders").await.ok(200);
    app.api_key(text(&keys[0])).get("/v1/orders").await.ok(200);
}
