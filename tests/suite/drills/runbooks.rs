//! Every command of every runbook, run against two replicas that serve (LOG-08).

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use service::dev::database::Urls;

use crate::support::{ACME, Actor, OddIssuer, TestApp, TestKey, UNTHROTTLED, eventually, id, query, test_database};

/// Two replicas, an issuer whose keys can be changed, and an operator's shell.
struct Incident {
    replicas: [TestApp; 2],
    issuer: OddIssuer,
    key: TestKey,
    database: Urls,
    environment: BTreeMap<String, String>,
}

impl Incident {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let (key, database) = (TestKey::es256("first"), test_database().await);
        let issuer = OddIssuer::with_keys(&[&key]).await;
        let [pepper, mac_key] = [(); 2].map(|()| STANDARD.encode(service::crypto::random::<32>().unwrap()));
        let own = [
            ("APP_OIDC__ISSUER", issuer.url.as_str()),
            ("APP_OIDC__REFRESH_SECONDS", "1"),
            ("APP_SECRETS__PEPPER", &pepper),
            ("APP_SECRETS__MAC_KEY", &mac_key),
        ];
        let all = [&UNTHROTTLED[..], &own, variables].concat();
        let replicas =
            [TestApp::start_on(database.clone(), &all).await, TestApp::start_on(database.clone(), &all).await];
        for replica in &replicas {
            replica.wait_until_ready().await;
        }
        let mut environment = TestApp::variables(&database, &issuer.url);
        environment.extend(all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self { replicas, issuer, key, database, environment }
    }

    /// The claims of somebody's token.
    fn token(&self, key: &TestKey, subject: &str) -> String {
        let replica = &self.replicas[0];
        let mut claims = self.issuer.claims(replica.clock.timestamp());
        claims["sub"] = subject.into();
        key.sign_text(&json!({ "alg": key.alg, "typ": "at+jwt", "kid": key.id }).to_string(), &claims.to_string())
    }

    /// The same person at each replica, who signed in just now.
    fn person(&self, subject: &str) -> [Actor; 2] {
        let token = self.token(&self.key, subject);
        self.replicas.each_ref().map(|replica| replica.bearer(token.clone()))
    }

    /// Runs a block of a page as its reader would, in a shell, and gives what was said.
    fn run(&self, page: &str, block: usize, variables: &[(&str, &str)]) -> String {
        let mut shell = Command::new("bash");
        let path = format!("{}:{}", commands().display(), std::env::var("PATH").unwrap());
        shell.args(["-euo", "pipefail", "-c", &blocks(page)[block]]).env_clear().env("PATH", path);
        shell.envs(&self.environment).env("REASON", format!("a test of {page}"));
        shell.env("APP_DATABASE__OPERATOR_URL", self.database.operator.expose_secret());
        shell.env("APP_DATABASE__BACKUP_URL", self.database.backup.expose_secret()).envs(variables.iter().copied());
        // The replicas, which are of this process, go on.
        let done = tokio::task::block_in_place(|| shell.output().unwrap());
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{page}: {said}{}", String::from_utf8_lossy(&done.stderr));
        said
    }

    /// Until it holds of both; how long that took is told with `--nocapture`.
    async fn until_both(&self, what: &str, of: &[Actor; 2], holds: impl AsyncFn(&Actor) -> bool) {
        let began = Instant::now();
        for actor in of {
            eventually(what, async || holds(actor).await).await;
        }
        println!("{what}: {:?} until both replicas", began.elapsed());
    }

    async fn until_refused(&self, what: &str, of: &[Actor; 2], status: u16) {
        self.until_both(what, of, async |actor| actor.get("/v1/me").await.status == status).await;
    }

    /// A file with what the log was told of seals.
    async fn anchors(&self) -> PathBuf {
        eventually("all is sealed", async || {
            let unsealed = "select count(*)::text from audit_journal
                            where position > (select coalesce(max(upto), 0) from audit_seals)";
            query(&self.database.owner, unsealed).await == ["0"]
        })
        .await;
        let seals = "select jsonb_build_object('target', 'security', 'event', 'audit_sealed', 'number', number,
                                               'digest', encode(digest, 'hex'))::text from audit_seals";
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("anchors-{}", uuid::Uuid::now_v7()));
        std::fs::write(&file, query(&self.database.owner, seals).await.join("\n")).unwrap();
        file
    }
}

/// A folder where the binary is called `app`.
fn commands() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("commands");
    std::fs::create_dir_all(&folder).unwrap();
    // Another test may have made it.
    let _ = std::os::unix::fs::symlink(env!(concat!("CARGO_BIN_EXE_", env!("CARGO_PKG_NAME"))), folder.join("app"));
    folder
}

/// The shell commands of a page, block by block.
fn blocks(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

async fn may_change(actor: &Actor) -> bool {
    let product = json!({ "name": "Ink", "price": { "amount": 500, "currency": "EUR" } });
    let reply = actor.send(actor.request(Method::PUT, "/v1/products/INK").json(&product)).await;
    if reply.status == 503 {
        assert_eq!((reply.problem(503), reply.header("retry-after")), ("unavailable", Some("60")));
        assert_eq!(reply.body["detail"], "The service is read-only for now.");
    }
    reply.status.is_success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_a_leaked_signing_key() {
    let page = "leaked-signing-key.md";
    let mut incident = Incident::start(&[]).await;
    let forger = incident.person("forger");
    assert!(may_change(&forger[0]).await);
    incident.run(page, 0, &[]);
    incident.until_both("read-only", &forger, async |actor| !may_change(actor).await).await;
    let takes_little = async |actor: &Actor| {
        let books = json!({ "kind": "orders", "from": "2020-01-01T00:00:00Z", "to": "2021-01-01T00:00:00Z" });
        actor
            .post("/v1/exports", &books)
            .await
            .header("ratelimit-policy")
            .is_some_and(|p| p.contains("\"export\";q=1;"))
    };
    incident.until_both("hardly any exports", &forger, takes_little).await;
    for actor in &forger {
        actor.get("/v1/orders").await.ok(200);
    }
    let before = incident.person("alice");
    for actor in &before {
        actor.get("/v1/me").await.ok(200);
    }
    let leaked = std::mem::replace(&mut incident.key, TestKey::es256("second"));
    incident.issuer.publish(&[&incident.key]);
    incident.until_refused("the issuer's other key", &forger, 401).await;
    let anchors = incident.anchors().await;
    incident.run(page, 1, &[("ANCHORS", anchors.to_str().unwrap())]);
    incident.until_refused("revoked", &before, 401).await;
    // Signed in again, people work on.
    eventually("as usual", async || {
        let alice = incident.person("alice");
        may_change(&alice[0]).await && may_change(&alice[1]).await
    })
    .await;
    for replica in &incident.replicas {
        assert_eq!(replica.bearer(incident.token(&leaked, "forger")).get("/v1/me").await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_a_leaked_api_key() {
    let page = "leaked-api-key.md";
    let incident = Incident::start(&[]).await;
    let [alice, _] = incident.person("alice");
    let new_key = async |name: &str| {
        let key = json!({ "name": name, "scopes": ["orders:read"], "validForDays": 30 });
        alice.post("/v1/api-keys", &key).await.ok(201)
    };
    let (leaked, other) = (new_key("leaked").await, new_key("other").await);
    let of = |key: &Value| incident.replicas.each_ref().map(|replica| replica.api_key(key["key"].as_str().unwrap()));
    let (thief, program) = (of(&leaked), of(&other));
    for actor in thief.iter().chain(&program) {
        actor.get("/v1/orders").await.ok(200);
    }
    // As it stands in the text that was found.
    let text = leaked["key"].as_str().unwrap();
    incident.run(page, 0, &[("KEY_ID", text.split('_').nth(1).unwrap())]);
    incident.until_refused("the leaked key", &thief, 401).await;
    for actor in &program {
        actor.get("/v1/orders").await.ok(200);
    }
    incident.run(page, 1, &[("SUBJECT", "alice")]);
    incident.until_refused("all of a person's", &program, 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_a_stolen_database_dump() {
    let page = "stolen-database-dump.md";
    let incident = Incident::start(&[]).await;
    let alice = incident.person("alice");
    let mut paths = Vec::new();
    for n in 0..20 {
        let person = json!({ "name": format!("Person {n}"), "email": format!("person-{n}@example.com") });
        paths.push(format!("/v1/customers/{}", id(&alice[0].post("/v1/customers", &person).await.ok(201))));
    }
    let under = "select string_agg(distinct data_key::text, ',') from customer_keys";
    let before = query(&incident.database.owner, under).await;
    let anchors = incident.anchors().await;
    incident.run(page, 0, &[("ANCHORS", anchors.to_str().unwrap())]);
    let now = query(&incident.database.owner, under).await;
    assert!(now.len() == 1 && now != before && !now[0].contains(','), "{before:?} {now:?}");
    for (n, path) in paths.iter().enumerate() {
        for actor in &alice {
            assert_eq!(actor.get(path).await.ok(200)["email"], format!("person-{n}@example.com"));
        }
    }
    incident.run(page, 1, &[]);
    incident.until_refused("everything", &alice, 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_credential_stuffing() {
    let page = "credential-stuffing.md";
    let incident = Incident::start(&[]).await;
    let (alice, bob) = (incident.person("alice"), incident.person("bob"));
    let inside = |actors: [Actor; 2]| actors.map(|actor| actor.at_address(Ipv4Addr::new(127, 0, 66, 7).into()));
    let (guesser, neighbour) =
        (inside(incident.replicas.each_ref().map(TestApp::anonymous)), inside(incident.person("bob")));
    for actor in neighbour.iter().chain(&alice) {
        actor.get("/v1/me").await.ok(200);
    }
    incident.run(page, 0, &[("NETWORK", "127.0.66.0/24")]);
    let shut_out = async |actor: &Actor| actor.get("/openapi.json").await.status == 429;
    incident.until_both("a network is shut out", &guesser, shut_out).await;
    let reply = neighbour[0].get("/v1/me").await;
    assert_eq!((reply.problem(429), reply.header("retry-after")), ("rate_limited", Some("60")));
    assert_eq!(reply.events()[0]["event"], "excess_rate_limit_exceeded");
    incident.run(page, 1, &[]);
    let sensitive = async |actor: &Actor| {
        let reply = actor.get("/v1/api-keys").await;
        reply.header("ratelimit-policy").is_some_and(|policy| policy.contains("\"sensitive\";q=5;w=60"))
    };
    incident.until_both("less for everyone", &bob, sensitive).await;
    incident.run(page, 2, &[("SUBJECT", "alice")]);
    incident.until_refused("signed out", &alice, 401).await;
    bob[0].get("/v1/me").await.ok(200);
    eventually("signed in again", async || incident.person("alice")[0].get("/v1/me").await.status == 200).await;
    incident.run(page, 3, &[("NETWORK", "127.0.66.0/24")]);
    incident.until_both("let in again", &guesser, async |actor| !shut_out(actor).await).await;
    incident.until_both("as much as usual", &bob, async |actor| !sensitive(actor).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_a_runaway_client() {
    let page = "runaway-client.md";
    let incident = Incident::start(&[]).await;
    let (client, tenant) = (incident.person("loop"), ACME.id.to_string());
    let policy = async |actor: &Actor, wanted: &str| {
        actor.get("/v1/me").await.header("ratelimit-policy").is_some_and(|policy| policy == wanted)
    };
    incident.run(page, 0, &[("TENANT", &tenant)]);
    let less = "\"read\";q=30;w=60, \"tenant\";q=60;w=60";
    incident.until_both("less for a tenant", &client, async |actor| policy(actor, less).await).await;
    eventually("used up", async || client[0].get("/v1/me").await.status == 429).await;
    incident.run(page, 1, &[("TENANT", &tenant)]);
    let usual = "\"read\";q=1000000;w=60, \"tenant\";q=1000000;w=60";
    incident.until_both("as usual", &client, async |actor| policy(actor, usual).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_an_insider() {
    let page = "insider.md";
    let incident = Incident::start(&[]).await;
    let (eve, bob) = (incident.person("eve"), incident.person("bob"));
    for actor in eve.iter().chain(&bob) {
        assert!(may_change(actor).await);
    }
    incident.run(page, 0, &[("SUBJECT", "eve")]);
    incident.until_refused("an insider", &eve, 401).await;
    incident.run(page, 1, &[]);
    incident.until_both("read-only", &bob, async |actor| !may_change(actor).await).await;
    let anchors = incident.anchors().await;
    assert!(incident.run(page, 2, &[("ANCHORS", anchors.to_str().unwrap())]).contains("nothing was changed"));
    incident.run(page, 3, &[]);
    incident.until_both("as usual", &bob, async |actor| may_change(actor).await).await;
}

/// So that no page has a command that no test runs.
#[test]
fn log_08_every_page_is_run() {
    let tested = [
        ("README.md", 0),
        ("credential-stuffing.md", 4),
        ("insider.md", 4),
        ("leaked-api-key.md", 2),
        ("leaked-signing-key.md", 2),
        ("runaway-client.md", 2),
        ("stolen-database-dump.md", 2),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    let mut pages: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .map(|page| (page.clone(), blocks(&page).len()))
        .collect();
    pages.sort();
    assert_eq!(pages, tested.map(|(page, blocks)| (page.to_owned(), blocks)));
}
