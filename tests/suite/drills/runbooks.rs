//! Every command of every runbook in `docs/runbooks`, run in a shell against two replicas (LOG-08).
//!
//! The tests run the pages block by block and assert the effect of each block on both replicas.

mod abused_tenant;
mod callers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use palisade::dev::database::Urls;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::{ACME, Actor, MisbehavingIssuer, SERVICE, TestApp, TestKey, UNTHROTTLED, eventually, id, query};

/// Two replicas, an issuer whose keys can change, and the environment of an operator's shell.
struct Incident {
    replicas: [TestApp; 2],
    issuer: MisbehavingIssuer,
    key: TestKey,
    database: Urls,
    environment: BTreeMap<String, String>,
}

impl Incident {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let key = TestKey::es256("first");
        let database = SERVICE.database().await;
        let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
        let [pepper, mac_key] = [(); 2].map(|()| STANDARD.encode(palisade::crypto::random::<32>().unwrap()));
        let settings = [
            ("APP_OIDC__ISSUER", issuer.url.as_str()),
            ("APP_OIDC__REFRESH_SECONDS", "1"),
            ("APP_SECRETS__PEPPER", &pepper),
            ("APP_SECRETS__MAC_KEY", &mac_key),
        ];
        let all = [&UNTHROTTLED[..], &settings, variables].concat();
        let replicas = [SERVICE.start_on(database.clone(), &all).await, SERVICE.start_on(database.clone(), &all).await];
        for replica in &replicas {
            replica.wait_until_ready().await;
        }
        let mut environment = TestApp::variables(&database, &issuer.url);
        environment.extend(all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self { replicas, issuer, key, database, environment }
    }

    /// A token of this subject, issued now and signed with this key.
    fn token(&self, key: &TestKey, subject: &str) -> String {
        let replica = &self.replicas[0];
        let mut claims = self.issuer.claims(replica.clock.timestamp());
        claims["sub"] = subject.into();
        key.sign_text(&json!({ "alg": key.alg, "typ": "at+jwt", "kid": key.id }).to_string(), &claims.to_string())
    }

    /// A person who has just signed in, as a caller of each replica.
    fn person(&self, subject: &str) -> [Actor; 2] {
        let token = self.token(&self.key, subject);
        self.replicas.each_ref().map(|replica| replica.bearer(token.clone()))
    }

    /// Runs a block of a page in a shell, as an operator would; returns standard output.
    fn run(&self, page: &str, block: usize, variables: &[(&str, &str)]) -> String {
        let mut shell = Command::new("bash");
        let path = format!("{}:{}", commands().display(), std::env::var("PATH").unwrap());
        shell.args(["-euo", "pipefail", "-c", &blocks(page)[block]]).env_clear().env("PATH", path);
        shell.envs(&self.environment).env("REASON", format!("a test of {page}"));
        shell.env("APP_DATABASE__OPERATOR_URL", self.database.operator.expose_secret());
        shell.env("APP_DATABASE__BACKUP_URL", self.database.backup.expose_secret()).envs(variables.iter().copied());
        // The replicas run in this process and must go on.
        let output = tokio::task::block_in_place(|| shell.output().unwrap());
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{page}: {stdout}{}", String::from_utf8_lossy(&output.stderr));
        stdout
    }

    /// Waits until a condition holds for both actors; prints how long it took (`--nocapture`).
    async fn wait_for_both(&self, what: &str, actors: &[Actor; 2], holds: impl AsyncFn(&Actor) -> bool) {
        let started = Instant::now();
        for actor in actors {
            eventually(what, async || holds(actor).await).await;
        }
        println!("{what}: {:?} until both replicas", started.elapsed());
    }

    /// Waits until both actors get this status.
    async fn wait_for_rejection(&self, what: &str, actors: &[Actor; 2], status: u16) {
        self.wait_for_both(what, actors, async |actor| actor.get("/v1/me").await.status == status).await;
    }

    /// A file with the `audit_sealed` events of the log, once all of the journal is sealed.
    async fn anchors(&self) -> PathBuf {
        eventually("all is sealed", async || {
            let unsealed = "select count(*)::text from palisade.audit_journal
                            where position > (select coalesce(max(upto), 0) from palisade.audit_seals)";
            query(&self.database.owner, unsealed).await == ["0"]
        })
        .await;
        let seals = "select jsonb_build_object('target', 'security', 'event', 'audit_sealed', 'number', number,
                                               'digest', encode(digest, 'hex'))::text from palisade.audit_seals";
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("anchors-{}", uuid::Uuid::now_v7()));
        std::fs::write(&file, query(&self.database.owner, seals).await.join("\n")).unwrap();
        file
    }
}

/// A folder with a link to the binary, named `app` as in the runbooks.
fn commands() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(concat!("commands-", env!("CARGO_PKG_NAME")));
    std::fs::create_dir_all(&folder).unwrap();
    // Fails if another test has created the link.
    let _ = std::os::unix::fs::symlink(env!(concat!("CARGO_BIN_EXE_", env!("CARGO_PKG_NAME"))), folder.join("app"));
    folder
}

/// The blocks of shell commands on a page.
fn blocks(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Whether a change succeeds. A rejection must be the one of read-only mode.
async fn can_change(actor: &Actor) -> bool {
    let product = json!({ "name": "Ink", "price": { "amount": 500, "currency": "EUR" } });
    let reply = actor.send(actor.request(Method::PUT, "/v1/products/INK").json(&product)).await;
    if reply.status == 503 {
        assert_eq!((reply.problem(503), reply.header("retry-after")), ("unavailable", Some("60")));
        assert_eq!(reply.body["detail"], "The service is read-only for now.");
    }
    reply.status.is_success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_runbook_leaked_signing_key() {
    let page = "leaked-signing-key.md";
    let mut incident = Incident::start(&[]).await;
    let forger = incident.person("forger");
    assert!(can_change(&forger[0]).await);
    incident.run(page, 0, &[]);
    incident.wait_for_both("read-only mode is on", &forger, async |actor| !can_change(actor).await).await;
    let has_export_limit = async |actor: &Actor| {
        let period = json!({ "kind": "orders", "from": "2020-01-01T00:00:00Z", "to": "2021-01-01T00:00:00Z" });
        actor
            .post("/v1/exports", &period)
            .await
            .header("ratelimit-policy")
            .is_some_and(|p| p.contains("\"export\";q=1;"))
    };
    incident.wait_for_both("exports are limited", &forger, has_export_limit).await;
    for actor in &forger {
        actor.get("/v1/orders").await.ok(200);
    }
    let before = incident.person("alice");
    for actor in &before {
        actor.get("/v1/me").await.ok(200);
    }
    let leaked = std::mem::replace(&mut incident.key, TestKey::es256("second"));
    incident.issuer.publish(&[&incident.key]);
    incident.wait_for_rejection("tokens of the old issuer key are rejected", &forger, 401).await;
    let anchors = incident.anchors().await;
    incident.run(page, 1, &[("ANCHORS", anchors.to_str().unwrap())]);
    incident.wait_for_rejection("earlier tokens are revoked", &before, 401).await;
    // After signing in again, callers are served.
    eventually("changes succeed again", async || {
        let alice = incident.person("alice");
        can_change(&alice[0]).await && can_change(&alice[1]).await
    })
    .await;
    for replica in &incident.replicas {
        assert_eq!(replica.bearer(incident.token(&leaked, "forger")).get("/v1/me").await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_runbook_leaked_api_key() {
    let page = "leaked-api-key.md";
    let incident = Incident::start(&[]).await;
    let [alice, _] = incident.person("alice");
    let new_key = async |name: &str| {
        let key = json!({ "name": name, "scopes": ["orders:read"], "validForDays": 30 });
        alice.post("/v1/api-keys", &key).await.ok(201)
    };
    let leaked = new_key("leaked").await;
    let other = new_key("other").await;
    let actors =
        |key: &Value| incident.replicas.each_ref().map(|replica| replica.api_key(key["key"].as_str().unwrap()));
    let thief = actors(&leaked);
    let program = actors(&other);
    for actor in thief.iter().chain(&program) {
        actor.get("/v1/orders").await.ok(200);
    }
    // The key's id is part of the leaked text.
    let text = leaked["key"].as_str().unwrap();
    incident.run(page, 0, &[("KEY_ID", text.split('_').nth(1).unwrap())]);
    incident.wait_for_rejection("the leaked API key is revoked", &thief, 401).await;
    // The event of the alert names the key in the other spelling.
    let event = thief[0].get("/v1/orders").await.event("authn_token_reuse");
    incident.run(page, 0, &[("KEY_ID", &event["key"])]);
    for actor in &program {
        actor.get("/v1/orders").await.ok(200);
    }
    incident.run(page, 1, &[("SUBJECT", "alice")]);
    incident.wait_for_rejection("all API keys of the subject are revoked", &program, 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_runbook_stolen_database_dump() {
    let page = "stolen-database-dump.md";
    let incident = Incident::start(&[]).await;
    let alice = incident.person("alice");
    let mut paths = Vec::new();
    for n in 0..20 {
        let person = json!({ "name": format!("Person {n}"), "email": format!("person-{n}@example.com") });
        paths.push(format!("/v1/customers/{}", id(&alice[0].post("/v1/customers", &person).await.ok(201))));
    }
    let used = "select string_agg(distinct data_key::text, ',') from palisade.row_keys";
    let before = query(&incident.database.owner, used).await;
    let anchors = incident.anchors().await;
    incident.run(page, 0, &[("ANCHORS", anchors.to_str().unwrap())]);
    let now = query(&incident.database.owner, used).await;
    assert!(now.len() == 1 && now != before && !now[0].contains(','), "{before:?} {now:?}");
    for (n, path) in paths.iter().enumerate() {
        for actor in &alice {
            assert_eq!(actor.get(path).await.ok(200)["email"], format!("person-{n}@example.com"));
        }
    }
    incident.run(page, 1, &[]);
    incident.wait_for_rejection("all credentials are revoked", &alice, 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_runbook_credential_stuffing() {
    let page = "credential-stuffing.md";
    let incident = Incident::start(&[]).await;
    let alice = incident.person("alice");
    let bob = incident.person("bob");
    let in_network = |actors: [Actor; 2]| actors.map(|actor| actor.at_address(Ipv4Addr::new(127, 0, 66, 7).into()));
    let attacker = in_network(incident.replicas.each_ref().map(TestApp::anonymous));
    let neighbour = in_network(incident.person("bob"));
    for actor in neighbour.iter().chain(&alice) {
        actor.get("/v1/me").await.ok(200);
    }
    let forged = incident.replicas[0].bearer("no.to.ken").at_address(Ipv4Addr::new(127, 0, 66, 7).into());
    let event = forged.get("/v1/me").await.event("authn_token_invalid");
    incident.run(page, 0, &[("NETWORK", &event["source"])]);
    let is_blocked = async |actor: &Actor| actor.get("/openapi.json").await.status == 429;
    incident.wait_for_both("the network is blocked", &attacker, is_blocked).await;
    let reply = neighbour[0].get("/v1/me").await;
    assert_eq!((reply.problem(429), reply.header("retry-after")), ("rate_limited", Some("60")));
    assert_eq!(reply.events()[0]["event"], "excess_rate_limit_exceeded");
    incident.run(page, 1, &[]);
    let has_sensitive_limit = async |actor: &Actor| {
        let reply = actor.get("/v1/api-keys").await;
        reply.header("ratelimit-policy").is_some_and(|policy| policy.contains("\"sensitive\";q=5;w=60"))
    };
    incident.wait_for_both("sensitive operations are limited for all", &bob, has_sensitive_limit).await;
    incident.run(page, 2, &[("SUBJECT", "alice")]);
    incident.wait_for_rejection("tokens of the subject are revoked", &alice, 401).await;
    bob[0].get("/v1/me").await.ok(200);
    eventually("a new token is accepted", async || incident.person("alice")[0].get("/v1/me").await.status == 200).await;
    incident.run(page, 3, &[("NETWORK", &event["source"])]);
    incident.wait_for_both("the network is accepted again", &attacker, async |actor| !is_blocked(actor).await).await;
    incident.wait_for_both("the limit is lifted", &bob, async |actor| !has_sensitive_limit(actor).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_runbook_runaway_client() {
    let page = "runaway-client.md";
    let incident = Incident::start(&[("APP_QUOTA__READ_PER_MINUTE", "100")]).await;
    let client = incident.person("loop");
    let has_policy = async |actor: &Actor, expected: &str| {
        actor.get("/v1/me").await.header("ratelimit-policy").is_some_and(|policy| policy == expected)
    };
    let mut reply = client[0].get("/v1/me").await;
    while reply.status != 429 {
        reply = client[0].get("/v1/me").await;
    }
    let event = reply.event("excess_rate_limit_exceeded");
    assert_eq!((&*event["subject"], &*event["tenant"]), ("loop", &*ACME.id.to_string()));
    let tenant = &event["tenant"];
    incident.run(page, 0, &[("TENANT", tenant)]);
    let limited = "\"read\";q=30;w=60, \"tenant\";q=60;w=60";
    incident.wait_for_both("the tenant is limited", &client, async |actor| has_policy(actor, limited).await).await;
    eventually("the quota is used up", async || client[0].get("/v1/me").await.status == 429).await;
    incident.run(page, 1, &[("TENANT", tenant)]);
    let normal = "\"read\";q=100;w=60, \"tenant\";q=1000000;w=60";
    incident.wait_for_both("the limit is lifted", &client, async |actor| has_policy(actor, normal).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_runbook_insider() {
    let page = "insider.md";
    let incident = Incident::start(&[]).await;
    let eve = incident.person("eve");
    let bob = incident.person("bob");
    for actor in eve.iter().chain(&bob) {
        assert!(can_change(actor).await);
    }
    // The event that the alert counts names the caller.
    let refused = eve[0].get(&format!("/v1/orders/{}", uuid::Uuid::now_v7())).await;
    refused.problem(404);
    let event = refused.event("authz_fail");
    assert_eq!((&*event["reason"], &*event["operation"]), ("object", "getOrder"));
    incident.run(page, 0, &[("SUBJECT", &event["subject"])]);
    incident.wait_for_rejection("tokens of the insider are revoked", &eve, 401).await;
    incident.run(page, 1, &[]);
    incident.wait_for_both("read-only mode is on", &bob, async |actor| !can_change(actor).await).await;
    let anchors = incident.anchors().await;
    assert!(incident.run(page, 2, &[("ANCHORS", anchors.to_str().unwrap())]).contains("nothing was changed"));
    incident.run(page, 3, &[]);
    incident.wait_for_both("changes succeed again", &bob, async |actor| can_change(actor).await).await;
}

/// Every block of every page is run by a test above.
#[test]
fn log_08_runbook_pages_and_blocks_are_all_tested() {
    let tested = [
        ("README.md", 1),
        ("abused-tenant.md", 2),
        ("credential-stuffing.md", 4),
        ("insider.md", 4),
        ("leaked-api-key.md", 2),
        ("leaked-signing-key.md", 2),
        ("runaway-client.md", 2),
        ("stolen-database-dump.md", 2),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    let pages = std::fs::read_dir(folder).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap());
    let pages: BTreeSet<_> = pages.map(|page| (page.clone(), blocks(&page).len())).collect();
    let tested = BTreeSet::from(tested.map(|(page, blocks)| (page.to_owned(), blocks)));
    let difference: Vec<_> = pages.symmetric_difference(&tested).collect();
    assert!(difference.is_empty(), "pages whose number of blocks differs from the tests: {difference:?}");
}
