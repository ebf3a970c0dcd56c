//! Quotas that replicas share in Redis (RATE-08): one count, outages, corrupt entries, TLS, and
//! safe settings in production (SECRET-03).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use http::Method;
use palisade::authz::{Callers, OnStoreDown, QuotaClass, Role};
use sample::access::{roles, scopes};

use crate::support::{ACME, Actor, Authority, GLOBEX, MATRIX, Redis, SERVICE, TestApp, eventually, incident};

/// Two replicas of a service.
struct Replicas([TestApp; 2]);

impl Replicas {
    async fn start(redis: &str, variables: &[(&str, &str)]) -> Self {
        let database = SERVICE.database().await;
        let keys: Vec<(String, String)> = TestApp::variables(&database, "http://127.0.0.1:9").into_iter().collect();
        let keys = keys.iter().filter(|(name, _)| name.starts_with("APP_SECRETS__"));
        let mut all: Vec<(&str, &str)> = keys.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // With a short timeout, a busy machine would count locally.
        all.extend([("APP_QUOTA__REDIS_URL", redis), ("APP_QUOTA__REDIS_TIMEOUT_MS", "5000")]);
        all.extend(variables);
        Self([SERVICE.start_on(database.clone(), &all).await, SERVICE.start_on(database, &all).await])
    }

    /// The same user on each replica.
    fn user(&self, role: Role) -> [Actor; 2] {
        self.0.each_ref().map(|app| app.user(role))
    }
}

/// Calls an operation of the class sensitive on a missing object.
async fn sensitive(user: &Actor) -> u16 {
    let erase = user.request(Method::DELETE, "/v1/notes/0190a001-0000-7000-8000-00000000ffff");
    user.send(erase).await.status.as_u16()
}

#[tokio::test]
async fn rate_08_replicas_share_one_quota() {
    let Some(redis) = Redis::start().await else { return };
    let quota = 300.0;
    let replicas = Replicas::start(&redis.url(), &[("APP_QUOTA__READ_PER_MINUTE", "300")]).await;
    let users = replicas.user(roles::VIEWER);
    let started = Instant::now();
    let count = async |user: &Actor| {
        let mut accepted = 0;
        let mut rejected = 0;
        while rejected < 20 {
            match user.get("/v1/me").await.status.as_u16() {
                200 => accepted += 1,
                429 => rejected += 1,
                other => panic!("{other}"),
            }
        }
        accepted
    };
    // The user exhausts the quota on both replicas at the same time.
    let (first, second) = tokio::join!(count(&users[0]), count(&users[1]));
    let refilled = started.elapsed().as_secs_f64() * quota / 60.0;
    let accepted = f64::from(first + second);
    assert!(accepted >= quota * 0.99, "{first} + {second}");
    assert!(accepted <= (quota + refilled) * 1.01 + 1.0, "{first} + {second}, refilled {refilled}");
    assert!(first > 20 && second > 20, "{first} + {second}: one replica got too few requests");
    // Other principals have separate quotas in the store too.
    replicas.0[0].user(roles::WRITER).get("/v1/me").await.ok(200);
    replicas.0[1].user_of(&GLOBEX, roles::VIEWER, &scopes::ALL).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn rate_08_tenant_quota_is_shared_and_excludes_rejected_requests() {
    let Some(redis) = Redis::start().await else { return };
    let quotas = [("APP_QUOTA__READ_PER_MINUTE", "3"), ("APP_QUOTA__TENANT_PER_MINUTE", "5")];
    let replicas = Replicas::start(&redis.url(), &quotas).await;
    let viewer = replicas.user(roles::VIEWER);
    let writer = replicas.user(roles::WRITER);
    for (replica, left) in [(0, 2), (1, 1), (0, 0)] {
        let reply = viewer[replica].get("/v1/me").await;
        assert_eq!(reply.header("ratelimit-policy"), Some("\"read\";q=3;w=60, \"tenant\";q=5;w=60"));
        let remaining = reply.header("ratelimit").unwrap();
        assert!(remaining.starts_with(&format!("\"read\";r={left};")), "{remaining}");
        assert!(remaining.contains(&format!("\"tenant\";r={};", left + 2)), "{remaining}");
        reply.ok(200);
    }
    for replica in [0, 1, 0, 1] {
        let reply = viewer[replica].get("/v1/me").await;
        assert_eq!((reply.problem(429), &reply.body["limit"]), ("rate_limited", &"read".into()));
        let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=20).contains(&seconds), "{seconds}");
    }
    for replica in [0, 1] {
        writer[replica].get("/v1/me").await.ok(200);
    }
    let reply = writer[0].get("/v1/me").await;
    assert_eq!((reply.problem(429), &reply.body["limit"]), ("rate_limited", &"tenant".into()));
    // The keys in the store do not contain the caller.
    let keys = redis.keys().await;
    assert!(
        keys.iter().any(|key| key.starts_with(&format!("{}:{}:read:", env!("CARGO_PKG_NAME"), ACME.id))),
        "{keys:?}"
    );
    assert!(!keys.concat().contains('@'), "{keys:?}");
    // They expire, and some have done so since (-2).
    for key in keys {
        assert!(matches!(redis.expires_in(&key).await, -2 | 0..=60), "{key}");
    }
}

#[tokio::test]
async fn rate_03_changed_shared_quota_hands_out_no_new_calls() {
    let Some(redis) = Redis::start().await else { return };
    let replicas = Replicas::start(&redis.url(), &[("APP_QUOTA__READ_PER_MINUTE", "2")]).await;
    let [first, second] = replicas.user(roles::VIEWER);
    first.get("/v1/me").await.ok(200);
    second.get("/v1/me").await.ok(200);
    incident(&SERVICE, &replicas.0[0].database, &["throttle", &ACME.id.to_string(), "read", "1"]);
    for user in [&first, &second] {
        eventually("the override applies", async || {
            let reply = user.get("/v1/me").await;
            assert_eq!(reply.problem(429), "rate_limited");
            reply.header("ratelimit-policy").is_some_and(|policy| policy.starts_with("\"read\";q=1;"))
        })
        .await;
    }
}

#[tokio::test]
async fn rate_08_classes_behave_as_the_matrix_says_while_the_store_is_down() {
    let Some(mut redis) = Redis::start().await else { return };
    let quotas = [("APP_QUOTA__READ_PER_MINUTE", "40"), ("APP_QUOTA__REDIS_TIMEOUT_MS", "1000")];
    let app = SERVICE.start_with(&[&quotas[..], &[("APP_QUOTA__REDIS_URL", &redis.url())]].concat()).await;
    let admin = app.user(roles::ADMIN);
    // The store counts: the remaining quota decreases.
    let reply = admin.get("/v1/me").await;
    assert!(reply.header("ratelimit").unwrap().starts_with("\"read\";r=39;"), "{reply:#?}");
    assert_eq!(sensitive(&admin).await, 404);

    // The store stops during requests; only the failures that the matrix allows occur.
    let load = async {
        let mut statuses = HashMap::new();
        for call in 0..30 {
            if call == 10 {
                redis.kill();
            }
            *statuses.entry(app.user(roles::WRITER).get("/v1/me").await.status.as_u16()).or_insert(0) += 1;
        }
        statuses
    };
    assert_eq!(load.await, HashMap::from([(200, 30)]));
    for row in MATRIX.iter().filter(|row| !matches!(row.callers, Callers::Public | Callers::Browser)) {
        let path = row.path.replace("{id}", "0190a001-0000-7000-8000-00000000ffff").replace("{code}", "NONE-SUCH");
        let reply = admin.send(admin.request(row.method.as_str().parse().unwrap(), &path)).await;
        match row.quota.on_store_down() {
            OnStoreDown::Closed => {
                assert_eq!(reply.problem(503), "unavailable", "{}", row.operation);
                assert_eq!(reply.header("retry-after"), Some("1"), "{}", row.operation);
            }
            OnStoreDown::Local => assert!(!reply.status.is_server_error(), "{}: {reply:#?}", row.operation),
        }
    }
    assert_eq!(QuotaClass::Sensitive.on_store_down(), OnStoreDown::Closed);
    // Reads are limited locally.
    let viewer = app.user(roles::VIEWER);
    eventually("the local quota is exhausted", async || viewer.get("/v1/me").await.status == 429).await;
    app.anonymous().get("/health/ready").await.ok(200);

    // The store comes back empty; the service uses it without a restart.
    redis.restart().await;
    eventually("the store counts again", async || sensitive(&admin).await == 404).await;
    let reply = app.user(roles::VIEWER).get("/v1/me").await;
    assert!(reply.header("ratelimit").unwrap().starts_with("\"read\";r=39;"), "{reply:#?}");
}

/// An attacker with write access to the store cannot block other callers.
#[tokio::test]
async fn rate_08_corrupt_entry_affects_its_owner_only() {
    let Some(redis) = Redis::start().await else { return };
    let app = SERVICE.start_with(&[("APP_QUOTA__REDIS_URL", &redis.url()), ("APP_QUOTA__READ_PER_MINUTE", "40")]).await;
    let owner = app.user(roles::ADMIN);
    let other = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    owner.get("/v1/me").await.ok(200);
    let keys = redis.keys().await;
    let key = keys.iter().find(|key| key.contains(":read:")).unwrap();
    // A text that is not a number, then a list.
    redis.run(redis::cmd("SET").arg(key).arg("abc")).await;
    let reply = owner.get("/v1/me").await;
    assert!(reply.header("ratelimit").unwrap().starts_with("\"read\";r=39;"), "{reply:#?}");
    assert!(redis.expires_in(key).await >= 1, "the entry is valid again");
    redis.run(redis::cmd("DEL").arg(key)).await;
    redis.run(redis::cmd("RPUSH").arg(key).arg("abc")).await;
    for _ in 0..10 {
        owner.get("/v1/me").await.ok(200);
        assert_eq!(sensitive(&other).await, 404);
    }
}

/// Only the first requests wait for the timeout; later ones count locally at once.
#[tokio::test]
async fn rate_08_hanging_store_delays_only_the_first_requests() {
    let Some(redis) = Redis::start().await else { return };
    let app =
        SERVICE.start_with(&[("APP_QUOTA__REDIS_URL", &redis.url()), ("APP_QUOTA__REDIS_TIMEOUT_MS", "400")]).await;
    let admin = app.user(roles::ADMIN);
    admin.get("/v1/me").await.ok(200);
    redis.suspend();
    admin.get("/v1/me").await.ok(200);
    let started = Instant::now();
    for _ in 0..50 {
        admin.get("/v1/me").await.ok(200);
    }
    // Each request that waits adds 0.4 s.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(sensitive(&admin).await, 503);
    redis.resume();
    eventually("the store counts again", async || sensitive(&admin).await == 404).await;
}

#[tokio::test]
async fn rate_08_service_starts_without_the_store_and_connects_later() {
    let Some(mut redis) = Redis::start().await else { return };
    redis.kill();
    let app = SERVICE.start_with(&[("APP_QUOTA__REDIS_URL", &redis.url())]).await;
    let admin = app.user(roles::ADMIN);
    admin.get("/v1/me").await.ok(200);
    assert_eq!(sensitive(&admin).await, 503);
    redis.restart().await;
    eventually("the store counts", async || sensitive(&admin).await == 404).await;
}

#[tokio::test]
async fn rate_08_store_needs_verified_tls_and_the_password() {
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
    let other_root = root.with_extension("other");
    std::fs::write(&other_root, Authority::new().root).unwrap();
    let start = async |scheme: &str, password: &str, root: Option<&std::path::Path>| {
        let url = format!("{scheme}://:{password}@localhost:{}", redis.port);
        let mut variables = vec![("APP_QUOTA__REDIS_URL", &*url)];
        variables.extend(root.map(|root| ("APP_QUOTA__REDIS_CA_PATH", root.to_str().unwrap())));
        SERVICE.start_with(&variables).await.user(roles::ADMIN)
    };
    let admin = start("rediss", "correct-horse", Some(&root)).await;
    eventually("the store counts", async || sensitive(&admin).await == 404).await;
    for (scheme, password, root) in [
        ("rediss", "wrong", Some(&*root)),
        ("rediss", "correct-horse", Some(&*other_root)),
        ("rediss", "correct-horse", None),
        ("redis", "correct-horse", None),
    ] {
        assert_eq!(sensitive(&start(scheme, password, root).await).await, 503, "{scheme} {password} {root:?}");
    }
    for file in [root, other_root] {
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test]
async fn secret_03_production_needs_tls_and_a_password_for_redis() {
    let database = SERVICE.database().await;
    let is_fault = |profile: &str, url: &str| {
        let mut all = TestApp::variables(&database, "https://issuer.example");
        all.insert("APP_PROFILE".to_owned(), profile.to_owned());
        all.insert("APP_QUOTA__REDIS_URL".to_owned(), url.to_owned());
        let faults = sample::app().read_settings(all).err().map(|faults| faults.to_string()).unwrap_or_default();
        assert!(!faults.contains("hunter2"), "{faults}");
        faults.contains("APP_QUOTA__REDIS_URL")
    };
    for (profile, url, is_rejected) in [
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
        assert_eq!(is_fault(profile, url), is_rejected, "{profile} {url}");
    }
}
