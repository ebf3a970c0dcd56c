//! Callers in the log (LOG-01): the line of a request and its events name subject, tenant, kind of
//! credential, and client or API key. Metrics and spans do not.

use http::Method;
use sample::{
    access::{roles, scopes},
    demo,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Observed;
use crate::support::{
    ACME, Actor, Credential, Forge, SERVICE,
    api_keys::{key_text, with_secret},
    eventually,
    mtls::{JOB, MtlsSetup, uri},
    note_body, parse_log,
};

fn named(line: &Value) -> [&Value; 5] {
    ["subject", "tenant", "credential", "client_id", "key"].map(|field| &line[field])
}

#[tokio::test]
async fn log_01_request_lines_and_events_name_the_caller() {
    let observed = Observed::start(&[]).await;
    let address = observed.process.address;
    // The longest subject, with the characters that JSON escapes.
    let subject = format!("{}\"\\", "s".repeat(253));
    let forged = |claim: &str, value: &str| {
        let forge = Forge::new(&SERVICE, &observed.issuer).claim("sub", &*subject).claim("client_id", "the-client");
        Actor::new(address, Some(forge.claim(claim, value).token()))
    };
    let user = forged("jti", "a");
    let trace_id = async |actor: &Actor, path: &str| actor.get(path).await.header("x-request-id").unwrap().to_owned();
    let created = user.post("/v1/notes", &note_body("PAPER-A4", 2)).await;
    let created = created.header("x-request-id").unwrap().to_owned();
    let read = trace_id(&user, "/v1/me").await;
    let malformed = trace_id(&user, "/v1/notes?unknown=1").await;
    let key = json!({ "name": "a program", "scopes": ["notes:read"], "validForDays": 3 });
    let key = observed.admin().post("/v1/api-keys", &key).await.ok(201);
    let program = Actor::with_credential(address, Some(Credential::ApiKey(key_text(&key).to_owned())));
    let by_key = [trace_id(&program, "/v1/notes").await, trace_id(&program, "/v1/notes").await];
    let guess = with_secret(key_text(&key), &"7".repeat(43));
    let guess = Actor::with_credential(address, Some(Credential::ApiKey(guess)));
    let unverified = [
        trace_id(&guess, "/v1/notes").await,
        trace_id(&Actor::new(address, Some("e30.e30.e30".into())), "/v1/me").await,
    ];
    let collector = &observed.collector;
    eventually("the records arrive", async || collector.records().iter().any(|r| r.trace_id == unverified[1])).await;
    let records = collector.records();
    let exported = records.iter().find(|record| record.trace_id == read && record.attributes.contains_key("micros"));
    assert_eq!(exported.unwrap().attributes["subject"], subject);
    eventually("a metric arrives", async || collector.latest("authentications", &[("credential", "api_key")]) > 0)
        .await;
    let points = format!("{:?}{:?}", collector.points(), collector.spans());
    for name in ["sss", "the-client", &ACME.id.to_string()] {
        assert!(!points.contains(name), "metrics and spans have {name}");
    }
    let (_, log) = observed.process.terminate().await;
    let lines = parse_log(&log);
    let of = |id: &str, field: &str, value: &str| {
        let found = |line: &&Value| line["trace_id"] == id && line[field] == value;
        named(lines.iter().find(found).unwrap_or_else(|| panic!("no {value} of {id}"))).map(Clone::clone)
    };
    let tenant = json!(ACME.id.to_string());
    let by_user = [json!(subject), tenant.clone(), json!("token"), json!("the-client"), Value::Null];
    for id in [&created, &read, &malformed] {
        assert_eq!(of(id, "message", "request"), by_user);
    }
    for (id, event) in
        [(&created, "data_changed"), (&created, "authn_login_success"), (&malformed, "input_validation_fail")]
    {
        assert_eq!(of(id, "event", event), by_user);
    }
    let id = key["id"].as_str().unwrap();
    let by_program = [json!(format!("api-key:{id}")), tenant, json!("api_key"), Value::Null, json!(id)];
    for request in &by_key {
        assert_eq!(of(request, "message", "request"), by_program);
    }
    for request in &unverified {
        assert_eq!(of(request, "message", "request"), [(); 5].map(|()| Value::Null), "a name that was not verified");
    }
}

/// Refused input counts by its caller, or by the network of a client without one: an address of a
/// network is not a source of its own.
#[tokio::test]
async fn log_01_refused_input_is_coalesced_by_caller_or_network() {
    let observed = Observed::start(&[("APP_OTLP__ENDPOINT", ""), ("APP_HTTP__TRUSTED_PROXIES", "127.0.0.1")]).await;
    let token = Forge::new(&SERVICE, &observed.issuer).claim("sub", "mallory").token();
    let address = observed.process.address;
    for (actor, path) in
        [(Actor::new(address, Some(token)), "/v1/me?unknown=1"), (Actor::new(address, None), "/health/live?unknown=1")]
    {
        for n in 1..=20 {
            let request = actor.request(Method::GET, path);
            let reply = actor.send(request.header("x-forwarded-for", format!("2001:db8:7:8::{n}"))).await;
            reply.problem(400);
        }
    }
    let (_, log) = observed.process.terminate().await;
    let lines = parse_log(&log);
    let refused = lines.iter().filter(|line| line["event"] == "input_validation_fail").collect::<Vec<_>>();
    let caller = format!("{} mallory", ACME.id);
    for (subject, source) in [(json!("mallory"), &*caller), (Value::Null, "2001:db8:7:8::/64")] {
        let first = refused.iter().filter(|line| line["repeated"].is_null() && line["subject"] == subject);
        let first = first.collect::<Vec<_>>();
        assert!(first.len() < 5 && first.iter().all(|line| line["source"] == "2001:db8:7:8::/64"), "{first:?}");
        let repeated =
            refused.iter().filter(|line| line["source"] == source).filter_map(|line| line["repeated"].as_u64());
        assert_eq!(first.len() as u64 + repeated.sum::<u64>(), 20, "{source}: {refused:?}");
    }
}

/// A scan of identifiers is two lines per period, and each refusal is counted.
#[tokio::test]
async fn log_01_refused_objects_are_coalesced_events_with_exact_counts() {
    let observed = Observed::start(&[("APP_OTLP__ENDPOINT", "")]).await;
    let scan = |subject: &str| {
        let token = Forge::new(&SERVICE, &observed.issuer).claim("sub", subject).token();
        Actor::new(observed.process.address, Some(token))
    };
    let [mallory, eve] = [scan("mallory"), scan("eve")];
    for _ in 0..150 {
        mallory.get(&format!("/v1/notes/{}", Uuid::now_v7())).await.problem(404);
        let body = json!({ "validForDays": 1, "overlapHours": 1 });
        eve.post(&format!("/v1/api-keys/{}/rotate", Uuid::now_v7()), &body).await.problem(404);
    }
    // Neither is an object without access.
    mallory.get("/v1/nowhere").await.problem(404);
    mallory.get(&format!("/v1/notes/{}", demo::FIRST_NOTE)).await.ok(200);
    let (_, log) = observed.process.terminate().await;
    let lines = parse_log(&log);
    let refused = lines.iter().filter(|line| line["event"] == "authz_fail").collect::<Vec<_>>();
    assert!(refused.len() < 30, "{} lines", refused.len());
    for (subject, operation) in [("mallory", "getNote"), ("eve", "rotateApiKey")] {
        let tenant = ACME.id.to_string();
        let first = refused.iter().filter(|line| line["subject"] == subject).collect::<Vec<_>>();
        assert_eq!(first[0]["reason"], "object");
        assert_eq!((&first[0]["operation"], &first[0]["tenant"]), (&json!(operation), &json!(tenant)));
        let summaries = refused.iter().filter(|line| line["source"] == format!("{tenant} {subject}"));
        let repeated = summaries.map(|line| line["repeated"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(first.len() as u64 + repeated, 150, "{subject}");
    }
}

#[tokio::test]
async fn log_01_first_use_of_a_credential_at_a_replica_is_an_event() {
    let setup = MtlsSetup::internal(&SERVICE, "notes:read", &[]).await;
    let logins = async |actor: &Actor, path: &str| {
        let events = actor.get(path).await.events();
        let logins = events.into_iter().filter(|event| event["event"] == "authn_login_success");
        logins.map(|event| (event["credential"].clone(), event["subject"].clone())).collect::<Vec<_>>()
    };
    let key = setup.app.new_api_key(&[scopes::NOTES_READ]).await;
    let certificates = [(); 2].map(|()| setup.authority.sign_for([uri(JOB)]));
    let [job, renewed] = certificates.each_ref().map(|certificate| setup.client(certificate, None));
    for (actor, credential, subject) in [
        (setup.app.user(roles::WRITER), "token", "writer@acme.example"),
        (setup.app.api_key(key_text(&key)), "api_key", &*format!("api-key:{}", key["id"].as_str().unwrap())),
        (job, "certificate", "service:job"),
        (renewed, "certificate", "service:job"),
    ] {
        assert_eq!(logins(&actor, "/v1/notes").await, [(credential.to_owned(), subject.to_owned())]);
        assert_eq!(logins(&actor, "/v1/notes").await, [], "{credential}");
    }
    // A credential that is not accepted is none.
    let unbound = setup.app.forge().claim("cnf", json!({ "x5t#S256": "A".repeat(43) })).token();
    assert_eq!(logins(&setup.app.bearer(unbound), "/v1/notes").await, []);
    let guess = with_secret(key_text(&key), &"7".repeat(43));
    assert_eq!(logins(&setup.app.api_key(&guess), "/v1/notes").await, []);
}

/// A token that was revoked: its holder is known, and the event names it.
#[tokio::test]
async fn log_01_use_of_a_revoked_token_names_its_subject() {
    let app = SERVICE.start().await;
    let token = app.forge().claim("sub", "mallory").claim("jti", "stolen").token();
    let [before, thief] = [(); 2].map(|()| app.bearer(token.clone()));
    before.get("/v1/me").await.ok(200);
    crate::support::api_keys::revoke(&app, "token", "stolen").await;
    // In the cache, and not in it.
    let unseen = app.forge().claim("sub", "mallory").claim("jti", "stolen").claim("client_id", "other").token();
    for actor in [thief, app.bearer(unseen)] {
        let reply = actor.send(actor.request(Method::GET, "/v1/me")).await;
        reply.problem(401);
        let event = &reply.events()[0];
        assert_eq!((&*event["event"], &*event["subject"]), ("authn_token_reuse", "mallory"));
        assert_eq!((&*event["tenant"], &*event["credential"]), (&*ACME.id.to_string(), "token"));
    }
}
