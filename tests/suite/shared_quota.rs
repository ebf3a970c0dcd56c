//! Quotas that replicas share, and what becomes of calls when the store is down (RATE-08).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use service::{
    authz::{
        matrix::{Callers, MATRIX, QuotaClass, Scope, Uncounted},
        policy::Role,
    },
    settings::Settings,
};

use crate::support::{ACME, Actor, Authority, GLOBEX, Redis, TestApp, eventually, test_database};

/// Two replicas of a service.
struct Replicas([TestApp; 2]);

impl Replicas {
    async fn start(redis: &str, variables: &[(&str, &str)]) -> Self {
        let database = test_database().await;
        let keys: Vec<(String, String)> = TestApp::variables(&database, "http://127.0.0.1:9").into_iter().collect();
        let keys = keys.iter().filter(|(name, _)| name.starts_with("APP_SECRETS__"));
        let mut all: Vec<(&str, &str)> = keys.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // Patient: a machine that is busy must not count locally here.
        all.extend([("APP_QUOTA__REDIS_URL", redis), ("APP_QUOTA__REDIS_TIMEOUT_MS", "5000")]);
        all.extend(variables);
        Self([TestApp::start_on(database.clone(), &all).await, TestApp::start_on(database, &all).await])
    }

    /// The same user at each.
    fn user(&self, role: Role) -> [Actor; 2] {
        self.0.each_ref().map(|app| app.user(role))
    }
}

/// A change of class sensitive, of something that is not there.
async fn sensitive(user: &Actor) -> u16 {
    user.post("/v1/invoices/0190a001-0000-7000-8000-00000000ffff/void", &serde_json::Value::Null).await.status.as_u16()
}

#[tokio::test]
async fn rate_08_two_replicas_keep_one_quota() {
    let Some(redis) = Redis::start().await else { return };
    let quota = 300.0;
    let replicas = Replicas::start(&redis.url(), &[("APP_QUOTA__READ_PER_MINUTE", "300")]).await;
    let users = replicas.user(Role::Viewer);
    let began = Instant::now();
    let count = async |user: &Actor| {
        let (mut accepted, mut refused) = (0, 0);
        while refused < 20 {
            match user.get("/v1/me").await.status.as_u16() {
                200 => accepted += 1,
                429 => refused += 1,
                other => panic!("{other}"),
            }
        }
        accepted
    };
    // Both are asked at once, and the caller takes all that there is.
    let (here, there) = tokio::join!(count(&users[0]), count(&users[1]));
    let back = began.elapsed().as_secs_f64() * quota / 60.0;
    let accepted = f64::from(here + there);
    assert!(accepted >= quota * 0.99, "{here} + {there}");
    assert!(accepted <= (quota + back) * 1.01 + 1.0, "{here} + {there}, of which {back} came back");
    assert!(here > 20 && there > 20, "{here} + {there}: one of them was not asked");
    // Others are others there too.
    replicas.0[0].user(Role::Sales).get("/v1/me").await.ok(200);
    replicas.0[1].user_of(&GLOBEX, Role::Viewer, &Scope::ALL).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn rate_08_the_tenants_quota_is_shared_and_what_is_refused_to_one_does_not_count() {
    let Some(redis) = Redis::start().await else { return };
    let quotas = [("APP_QUOTA__READ_PER_MINUTE", "3"), ("APP_QUOTA__TENANT_PER_MINUTE", "5")];
    let replicas = Replicas::start(&redis.url(), &quotas).await;
    let (one, another) = (replicas.user(Role::Viewer), replicas.user(Role::Sales));
    for (at, left) in [(0, 2), (1, 1), (0, 0)] {
        let reply = one[at].get("/v1/me").await;
        assert_eq!(reply.header("ratelimit-policy"), Some("\"read\";q=3;w=60, \"tenant\";q=5;w=60"));
        let stands = reply.header("ratelimit").unwrap();
        assert!(stands.starts_with(&format!("\"read\";r={left};")), "{stands}");
        assert!(stands.contains(&format!("\"tenant\";r={};", left + 2)), "{stands}");
        reply.ok(200);
    }
    for at in [0, 1, 0, 1] {
        let reply = one[at].get("/v1/me").await;
        assert_eq!((reply.problem(429), &reply.body["limit"]), ("rate_limited", &"read".into()));
        let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=20).contains(&seconds), "{seconds}");
    }
    for at in [0, 1] {
        another[at].get("/v1/me").await.ok(200);
    }
    let reply = another[0].get("/v1/me").await;
    assert_eq!((reply.problem(429), &reply.body["limit"]), ("rate_limited", &"tenant".into()));
    // Nothing there says who calls.
    let keys = redis.keys().await;
    assert!(
        keys.iter().any(|key| key.starts_with(&format!("{}:{}:read:3:", env!("CARGO_PKG_NAME"), ACME.id))),
        "{keys:?}"
    );
    assert!(!keys.concat().contains('@'), "{keys:?}");
    // Nor does it stay.
    for key in keys {
        assert!((1..=60).contains(&redis.expires_in(&key).await), "{key}");
    }
}

#[tokio::test]
async fn rate_08_when_the_store_dies_each_class_does_as_the_matrix_says() {
    let Some(mut redis) = Redis::start().await else { return };
    let quotas = [("APP_QUOTA__READ_PER_MINUTE", "40"), ("APP_QUOTA__REDIS_TIMEOUT_MS", "1000")];
    let app = TestApp::start_with(&[&quotas[..], &[("APP_QUOTA__REDIS_URL", &redis.url())]].concat()).await;
    let admin = app.user(Role::Admin);
    // Counted there: what is left goes down.
    let reply = admin.get("/v1/me").await;
    assert!(reply.header("ratelimit").unwrap().starts_with("\"read\";r=39;"), "{reply:#?}");
    assert_eq!(sensitive(&admin).await, 404);

    // It dies while calls are made; none of them is answered with a failure that is not the matrix's.
    let load = async {
        let mut seen = HashMap::new();
        for call in 0..30 {
            if call == 10 {
                redis.kill();
            }
            *seen.entry(app.user(Role::Sales).get("/v1/me").await.status.as_u16()).or_insert(0) += 1;
        }
        seen
    };
    assert_eq!(load.await, HashMap::from([(200, 30)]));
    for row in MATRIX.iter().filter(|row| row.callers != Callers::Public) {
        let path = row.path.replace("{id}", "0190a001-0000-7000-8000-00000000ffff").replace("{sku}", "NONE-SUCH");
        let reply = admin.send(admin.request(row.method.as_str().parse().unwrap(), &path)).await;
        match row.quota.uncounted() {
            Uncounted::Closed => {
                assert_eq!(reply.problem(503), "unavailable", "{}", row.operation);
                assert_eq!(reply.header("retry-after"), Some("1"), "{}", row.operation);
            }
            Uncounted::Local => assert!(!reply.status.is_server_error(), "{}: {reply:#?}", row.operation),
        }
    }
    assert_eq!(QuotaClass::Sensitive.uncounted(), Uncounted::Closed);
    // Reads are not without a limit meanwhile.
    let viewer = app.user(Role::Viewer);
    eventually("its quota here is used up", async || viewer.get("/v1/me").await.status == 429).await;
    app.anonymous().get("/health/ready").await.ok(200);

    // And it comes back, empty, without a new start of the service.
    redis.revive().await;
    eventually("counted again", async || sensitive(&admin).await == 404).await;
    let reply = app.user(Role::Viewer).get("/v1/me").await;
    assert!(reply.header("ratelimit").unwrap().starts_with("\"read\";r=39;"), "{reply:#?}");
}

/// Whoever could write into the store could not take it away from others.
#[tokio::test]
async fn rate_08_what_is_wrong_in_the_store_concerns_its_owner_only() {
    let Some(redis) = Redis::start().await else { return };
    let app =
        TestApp::start_with(&[("APP_QUOTA__REDIS_URL", &redis.url()), ("APP_QUOTA__READ_PER_MINUTE", "40")]).await;
    let (one, other) = (app.user(Role::Admin), app.user_of(&GLOBEX, Role::Admin, &Scope::ALL));
    one.get("/v1/me").await.ok(200);
    let keys = redis.keys().await;
    let key = keys.iter().find(|key| key.contains(":read:")).unwrap();
    // No number, and then no text at all.
    redis.run(redis::cmd("SET").arg(key).arg("abc")).await;
    let reply = one.get("/v1/me").await;
    assert!(reply.header("ratelimit").unwrap().starts_with("\"read\";r=39;"), "{reply:#?}");
    assert!(redis.expires_in(key).await >= 1, "it is a bucket again");
    redis.run(redis::cmd("DEL").arg(key)).await;
    redis.run(redis::cmd("RPUSH").arg(key).arg("abc")).await;
    for _ in 0..10 {
        one.get("/v1/me").await.ok(200);
        assert_eq!(sensitive(&other).await, 404);
    }
}

/// A store that hangs costs the first callers the time-out, and nobody after them anything.
#[tokio::test]
async fn rate_08_a_store_that_hangs_is_given_up() {
    let Some(redis) = Redis::start().await else { return };
    let app =
        TestApp::start_with(&[("APP_QUOTA__REDIS_URL", &redis.url()), ("APP_QUOTA__REDIS_TIMEOUT_MS", "400")]).await;
    let admin = app.user(Role::Admin);
    admin.get("/v1/me").await.ok(200);
    redis.suspend();
    admin.get("/v1/me").await.ok(200);
    let began = Instant::now();
    for _ in 0..50 {
        admin.get("/v1/me").await.ok(200);
    }
    // Each that waited would add 0.4 s.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(sensitive(&admin).await, 503);
    redis.resume();
    eventually("counted again", async || sensitive(&admin).await == 404).await;
}

#[tokio::test]
async fn rate_08_the_service_starts_without_the_store_and_finds_it_later() {
    let Some(mut redis) = Redis::start().await else { return };
    redis.kill();
    let app = TestApp::start_with(&[("APP_QUOTA__REDIS_URL", &redis.url())]).await;
    let admin = app.user(Role::Admin);
    admin.get("/v1/me").await.ok(200);
    assert_eq!(sensitive(&admin).await, 503);
    redis.revive().await;
    eventually("counted", async || sensitive(&admin).await == 404).await;
}

#[tokio::test]
async fn rate_08_the_store_is_reached_by_tls_and_with_a_password() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign();
    let files = [("certificate.pem", certificate), ("key.pem", key), ("root.pem", authority.root.clone())];
    let options = [
        "--port 0 --tls-port {port} --tls-auth-clients no --requirepass correct-horse",
        "--tls-cert-file {files}/certificate.pem --tls-key-file {files}/key.pem --tls-ca-cert-file {files}/root.pem",
    ];
    let options: Vec<&str> = options.iter().flat_map(|line| line.split(' ')).collect();
    let Some(redis) = Redis::start_with(&files, &options).await else { return };
    let root = std::env::temp_dir().join(format!("root-{}.pem", uuid::Uuid::now_v7()));
    std::fs::write(&root, &authority.root).unwrap();
    let stranger = root.with_extension("other");
    std::fs::write(&stranger, Authority::new().root).unwrap();
    let start = async |scheme: &str, password: &str, root: Option<&std::path::Path>| {
        let url = format!("{scheme}://:{password}@localhost:{}", redis.port);
        let mut variables = vec![("APP_QUOTA__REDIS_URL", &*url)];
        variables.extend(root.map(|root| ("APP_QUOTA__REDIS_CA_PATH", root.to_str().unwrap())));
        TestApp::start_with(&variables).await.user(Role::Admin)
    };
    let admin = start("rediss", "correct-horse", Some(&root)).await;
    eventually("counted there", async || sensitive(&admin).await == 404).await;
    for (scheme, password, root) in [
        ("rediss", "wrong", Some(&*root)),
        ("rediss", "correct-horse", Some(&*stranger)),
        ("rediss", "correct-horse", None),
        ("redis", "correct-horse", None),
    ] {
        assert_eq!(sensitive(&start(scheme, password, root).await).await, 503, "{scheme} {password} {root:?}");
    }
    for file in [root, stranger] {
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test]
async fn secret_03_the_store_of_quotas_is_reached_safely_in_production() {
    let database = test_database().await;
    let faults = |profile: &str, url: &str| {
        let mut all = TestApp::variables(&database, "https://issuer.example");
        all.insert("APP_PROFILE".to_owned(), profile.to_owned());
        all.insert("APP_QUOTA__REDIS_URL".to_owned(), url.to_owned());
        let faults = Settings::from_variables(all).err().map(|faults| faults.to_string()).unwrap_or_default();
        assert!(!faults.contains("hunter2"), "{faults}");
        faults.contains("APP_QUOTA__REDIS_URL")
    };
    for (profile, url, wrong) in [
        ("production", "rediss://:0123456789abcdef@redis.example", false),
        ("production", "rediss://app:0123456789abcdef@redis.example:6380/2", false),
        ("production", "redis://:0123456789abcdef@redis.example", true),
        ("production", "rediss://:hunter2@redis.example", true),
        ("production", "rediss://redis.example", true),
        ("production", "redis://127.0.0.1", false),
        ("production", "rediss://:0123456789abcdef@redis.example/#insecure", true),
        ("development", "rediss://:0123456789abcdef@redis.example/?protocol=3", true),
        ("development", "redis://redis.example", false),
        ("development", "http://redis.example", true),
        ("development", "redis:hunter2", true),
        ("development", "hunter2", true),
    ] {
        assert_eq!(faults(profile, url), wrong, "{profile} {url}");
    }
}
