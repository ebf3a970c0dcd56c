//! Secrets that change while the service runs (SECRET-04): a service in a process of its own, with a file for each.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use secrecy::ExposeSecret as _;
use serde_json::json;
use service::{
    authz::{matrix::Scope, policy::Role},
    crypto::{MasterKeys, WrappedDataKey},
    domain::Clock,
    ops::{Keys, Pass},
    settings::Settings,
    store::Database,
};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::{
    ACME, Actor, Authority, Credential, FiledService, GLOBEX, Logins, PemFiles, Redis, TestApp, eventually, keyset,
    person, query, run, superuser, test_database,
};

const LOGINS: [&str; 4] = Logins::ALL;

/// Calls that need each login, until it is done; how many. Each must succeed.
async fn load(admin: &Actor, address: std::net::SocketAddr, done: &AtomicBool) -> usize {
    let mut calls = 0;
    while !done.load(Ordering::Relaxed) {
        let created = admin.post("/v1/customers", &json!({ "name": "New", "email": "new@example.com" })).await.ok(201);
        let path = format!("/v1/customers/{}", created["id"].as_str().unwrap());
        assert_eq!(admin.get(&path).await.ok(200)["email"], "new@example.com");
        admin.get("/v1/orders?limit=5").await.ok(200);
        calls += 3;
        tokio::time::sleep(Duration::from_millis(20)).await;
        if calls % 30 == 0 {
            let key = json!({ "name": "for a test", "scopes": ["orders:read"], "validForDays": 1 });
            let made = admin.post("/v1/api-keys", &key).await.ok(201);
            let key = Credential::ApiKey(made["key"].as_str().unwrap().to_owned());
            Actor::with(address, Some(key)).get("/v1/orders?limit=1").await.ok(200);
        }
    }
    calls
}

#[tokio::test]
async fn secret_04_logins_change_under_load_and_the_old_ones_are_let_go() {
    let database = test_database().await;
    let mut root = superuser(&database).await;
    let (old, new) = (Logins::new().create(&mut root).await, Logins::new().create(&mut root).await);
    let mut service = FiledService::start(old.of(database), "100", &[]).await;
    let (admin, address, done) = (service.admin(), service.serving.address, AtomicBool::new(false));
    let change = async {
        assert_ne!(old.connections(&service.database).await, "0");
        service.write_urls(&new);
        for login in LOGINS {
            let secret = format!("DATABASE__{}_URL", login.to_uppercase());
            service.event("secret_renewed", &secret).await;
            for component in ["serve", "reload"] {
                let read = service.serving.event("secret_read", &format!("APP_{secret}")).await;
                assert_eq!(read["component"], component);
                assert!(read["source"].as_str().unwrap().ends_with(&secret), "{read}");
            }
        }
        for login in LOGINS {
            service.event("secret_retired", &format!("DATABASE__{}_URL", login.to_uppercase())).await;
        }
        // As the event says, and then nothing needs them.
        eventually("no connection of the old ones", async || old.connections(&service.database).await == "0").await;
        old.drop(&mut root).await;
        assert_ne!(new.connections(&service.database).await, "0");
        done.store(true, Ordering::Relaxed);
    };
    let one = || load(&admin, address, &done);
    let (first, second, third, ()) = tokio::join!(one(), one(), one(), change);
    assert!(first.min(second).min(third) > 20, "{first} {second} {third}");
    let (status, log) = service.serving.terminate().await;
    assert!(status.success() && !log.contains("secret_renewed"), "{log}");
    new.drop(&mut root).await;
}

#[tokio::test]
async fn secret_04_the_password_of_a_login_changes_and_no_call_fails_in_between() {
    let database = test_database().await;
    let mut root = superuser(&database).await;
    let mut logins = Logins::new().create(&mut root).await;
    let mut service = FiledService::start(logins.of(database), "3600000", &[]).await;
    let before = service.url("reader");
    // Nothing looks at the files; a connection that is refused does.
    logins.password = Logins::password();
    service.write_urls(&logins);
    for login in LOGINS {
        let alter = format!("alter role {} password '{}'", logins.name(login), logins.password);
        sqlx::raw_sql(AssertSqlSafe(alter)).execute(&mut root).await.unwrap();
    }
    assert!(run(&before.into(), "select 1").await.is_err(), "the old password is right still");
    // More at once than there are connections from before.
    let admin = service.admin();
    let read = async || admin.get("/v1/orders").await.ok(200);
    let write = async |n| {
        admin.post("/v1/customers", &json!({ "name": format!("Person {n}"), "email": "new@example.com" })).await.ok(201)
    };
    tokio::join!(read(), read(), read(), read(), write(1), write(2), write(3), write(4));
    for login in ["writer", "reader"] {
        service.event("secret_renewed", &format!("DATABASE__{}_URL", login.to_uppercase())).await;
    }
    let (status, log) = service.serving.terminate().await;
    assert!(status.success(), "{log}");
    logins.drop(&mut root).await;
}

#[tokio::test]
async fn secret_04_keys_and_certificates_change_at_a_hangup_and_what_cannot_be_used_is_not() {
    let (first, second) = (Authority::new(), Authority::new());
    let pem = PemFiles::new(first.sign());
    let (certificate, key) = (pem.certificate(), pem.key());
    let tls =
        [("APP_TLS__CERTIFICATE_PATH", certificate.to_str().unwrap()), ("APP_TLS__KEY_PATH", key.to_str().unwrap())];
    let mut service = FiledService::start(test_database().await, "3600000", &tls).await;
    let address = service.serving.address;
    let token = service.issuer.access_token(&person(&ACME, Role::Admin), &Scope::ALL);
    let admin = |authority: &Authority| {
        Actor::by_tls(authority.client(address).build().unwrap(), address.port(), Some(token.clone()))
    };
    let customers = async || admin(&first).get("/v1/customers?limit=100").await.ok(200);
    let names = |secret: &str| service.files.read(secret);
    let (master, index) = (names("KEYS__MASTER"), names("KEYS__INDEX"));
    let new_master = keyset(2);
    let somebody = json!({ "name": "Found", "email": "found@example.com" });
    admin(&first).post("/v1/customers", &somebody).await.ok(201);
    // Without the one that wraps what there is.
    service.files.write("KEYS__MASTER", &new_master);
    service.files.write("KEYS__INDEX", &keyset(1));
    service.serving.hang_up();
    let reason = service.event("secret_not_renewed", "KEYS__MASTER").await;
    assert!(reason.contains("keyset:1"), "{reason}");
    let reason = service.event("secret_not_renewed", "KEYS__INDEX").await;
    assert!(reason.contains("index"), "{reason}");
    // One under the same version, beside the right one for something else.
    service.files.write("KEYS__MASTER", &keyset(1));
    service.serving.hang_up();
    let reason = service.event("secret_not_renewed", "KEYS__MASTER").await;
    assert!(reason.contains("does not open with master key keyset:1"), "{reason}");
    // As a reader may find a file that is being written.
    service.files.write("KEYS__MASTER", "2:");
    service.serving.hang_up();
    let reason = service.fault().await;
    assert!(reason.contains("APP_KEYS__MASTER"), "{reason}");
    customers().await;

    service.files.write("KEYS__MASTER", &format!("{new_master},{master}"));
    service.files.write("KEYS__INDEX", &format!("{},{index}", keyset(2)));
    let (certificate, key) = second.sign();
    pem.write(certificate, key);
    service.serving.hang_up();
    for secret in ["KEYS__MASTER", "KEYS__INDEX"] {
        service.event("secret_renewed", secret).await;
    }
    eventually("the new certificate", async || admin(&second).is_let_in().await).await;
    assert!(!admin(&first).is_let_in().await, "the old certificate is used");
    // What only the new master key opens, the service opens.
    let mut variables = TestApp::variables(&service.database, service.issuer.url());
    for secret in ["KEYS__MASTER", "KEYS__INDEX"] {
        variables.insert(format!("APP_{secret}"), service.files.read(secret));
    }
    rotate(variables).await;
    let wrapped = "select concat(version, ' ', wrapped_by) from data_keys order by of_tenant, version";
    let wrapped = query(&service.database.owner, wrapped).await;
    assert!(wrapped.contains(&"2 keyset:2".to_owned()), "{wrapped:?}");
    let shown = admin(&second).get("/v1/customers?limit=100").await.ok(200);
    assert!(shown["items"].as_array().unwrap().iter().all(|customer| customer["masked"] == false), "{shown}");
    // And what is found by the new index key only.
    let found = admin(&second).get("/v1/customers?email=found%40example.com").await.ok(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");
    let used = "select distinct data_key::text from customer_keys";
    assert_eq!(query(&service.database.owner, used).await, ["2"]);
}

async fn rotate(variables: BTreeMap<String, String>) {
    let settings = Settings::from_variables(variables).unwrap();
    let rotate = Keys::Rotate { pass: Pass::of(Some(ACME.id.uuid())) };
    rotate.run(&settings, None, &Clock::system(), |_| {}).await.unwrap();
}

/// Two replicas had different keys under one version for a while, and each wrapped a tenant's data key with its own. Going over
/// to the other's must not lose what opens here, whichever of the two a look takes for an example.
#[tokio::test]
async fn secret_04_no_master_key_is_let_go_that_something_opens_with() {
    let (mine, theirs) = (keyset(2), keyset(2));
    for of_mine in [ACME.id, GLOBEX.id] {
        let urls = test_database().await;
        let first = urls.master_keys.expose_secret().to_owned();
        let settings = |first: &str, more: &str| {
            let mut variables = TestApp::variables(&urls, "http://127.0.0.1:9");
            variables.insert("APP_KEYS__MASTER".to_owned(), format!("{first},{more}"));
            Settings::from_variables(variables).unwrap()
        };
        let database = Database::new(&settings(&mine, &first), Clock::system()).unwrap();
        let mut root = superuser(&urls).await;
        let rows: Vec<(Uuid, i32, String, Vec<u8>)> =
            sqlx::query_as("select of_tenant, version, wrapped_by, wrapped from data_keys")
                .fetch_all(&mut root)
                .await
                .unwrap();
        for (tenant, version, wrapped_by, wrapped) in rows {
            let with = if tenant == of_mine.uuid() { &mine } else { &theirs };
            let master = MasterKeys::new(&settings(with, &first).keys).unwrap();
            let old = WrappedDataKey { version, wrapped_by, wrapped };
            let new = master.rewrap("keyset:2", tenant, &old).await.unwrap().unwrap();
            sqlx::query("update data_keys set wrapped_by = $2, wrapped = $3 where of_tenant = $1")
                .bind(tenant)
                .bind(new.wrapped_by)
                .bind(new.wrapped)
                .execute(&mut root)
                .await
                .unwrap();
        }
        let refused = database.renew_master_keys(&settings(&theirs, &first).keys).await.unwrap_err();
        assert!(refused.to_string().contains("does not open with master key keyset:2"), "{refused}");
        // What does not open anyway is no reason to refuse others, nor to start without any.
        let third = || settings(&keyset(3), &format!("{mine},{first}")).keys;
        database.renew_master_keys(&third()).await.unwrap();
        let refused = database.renew_master_keys(&third()).await.unwrap_err();
        assert!(refused.to_string().contains("keyset:3 is another one"), "{refused}");
        Database::new(&settings(&mine, &first), Clock::system()).unwrap().check_fit().await.unwrap();
    }
}

#[tokio::test]
async fn secret_04_only_a_password_changes_and_never_what_it_is_for() {
    let database = test_database().await;
    let mut root = superuser(&database).await;
    let logins = Logins::new().create(&mut root).await;
    let mut service = FiledService::start(database, "100", &[]).await;
    let admin = service.admin();
    let broken = service.url("authn").replace(':', ":0");
    let elsewhere = test_database().await;
    let (plain, owner) = (service.url("reader") + "?sslmode=disable", service.database.owner.clone());
    let (operator, reader) = (service.database.operator.clone(), service.database.reader.clone());
    let (mac_key, other_reader) = (keyset(1), logins.url("reader", reader.expose_secret()));
    for (secret, text, expected) in [
        ("DATABASE__READER_URL", elsewhere.reader.expose_secret(), "names another database"),
        ("DATABASE__WRITER_URL", owner.expose_secret(), "owns tables"),
        ("DATABASE__WRITER_URL", &other_reader, "may not write, and is the writer"),
        ("DATABASE__KEYS_URL", operator.expose_secret(), "app_operator"),
        ("DATABASE__AUTHN_URL", &broken, ""),
        ("SECRETS__MAC_KEY", &mac_key[2..], "needs a restart"),
        ("DATABASE__READER_URL", &plain, "names another database, or another way there"),
    ] {
        let before = service.files.read(secret);
        service.files.write(secret, text);
        let reason = match expected {
            "" => service.fault().await,
            _ => service.event("secret_not_renewed", secret).await,
        };
        assert!(reason.contains(expected), "{secret}: {reason}");
        // The one from before is used.
        admin.get("/v1/orders").await.ok(200);
        admin.post("/v1/customers", &json!({ "name": "New", "email": "new@example.com" })).await.ok(201);
        service.files.write(secret, &before);
    }
    // Told once, however often it is looked.
    service.files.write("DATABASE__WRITER_URL", owner.expose_secret());
    service.event("secret_not_renewed", "DATABASE__WRITER_URL").await;
    let both = format!("{},{}", service.files.read("KEYS__INDEX"), keyset(2));
    service.files.write("KEYS__INDEX", &both);
    service.event("secret_renewed", "KEYS__INDEX").await;
    assert!(
        service.serving.said.iter().all(|line| line["event"] != "secret_not_renewed"),
        "{:?}",
        service.serving.said
    );
    let (status, log) = service.serving.terminate().await;
    assert!(status.success() && !log.contains("secret_not_renewed"), "{log}");
    assert!(!log.contains("secret_renewed"), "{log}");
}

#[tokio::test]
async fn secret_04_the_password_of_the_store_of_quotas_changes_too() {
    let passwords = [Logins::password(), Logins::password()];
    let Some(redis) = Redis::start_with(&[], &["--requirepass", &passwords[0]]).await else { return };
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}", redis.port);
    let client = redis::Client::open(url(&passwords[0])).unwrap();
    let mut root = client.get_multiplexed_async_connection().await.unwrap();
    // A bucket that takes long enough to be full again to be seen.
    let own = [("APP_QUOTA__REDIS_URL", &*url(&passwords[0])), ("APP_QUOTA__READ_PER_MINUTE", "100")];
    let mut service = FiledService::start(test_database().await, "100", &own).await;
    let admin = service.admin();
    // Whether a call is counted there.
    let counted = async |root: &mut redis::aio::MultiplexedConnection| {
        redis::cmd("FLUSHALL").arg("SYNC").query_async::<()>(root).await.unwrap();
        admin.get("/v1/me").await.ok(200);
        let keys: Vec<String> = redis::cmd("KEYS").arg("*:read:*").query_async(root).await.unwrap();
        keys.len() == 1
    };
    assert!(counted(&mut root).await);
    service.files.write("QUOTA__REDIS_URL", &url(&passwords[0]).replace("127.0.0.1", "127.0.0.2"));
    let reason = service.event("secret_not_renewed", "QUOTA__REDIS_URL").await;
    assert!(reason.contains("another store"), "{reason}");
    service.files.write("QUOTA__REDIS_URL", &url(&passwords[1]));
    let reason = service.event("secret_not_renewed", "QUOTA__REDIS_URL").await;
    assert!(reason.contains("quotas: "), "{reason}");
    assert!(counted(&mut root).await);
    let set = redis::cmd("CONFIG").arg("SET").arg("requirepass").arg(&passwords[1]).to_owned();
    set.query_async::<()>(&mut root).await.unwrap();
    service.event("secret_renewed", "QUOTA__REDIS_URL").await;
    assert!(counted(&mut root).await);
    // From now on it connects with that one.
    let kill = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes").to_owned();
    kill.query_async::<()>(&mut root).await.unwrap();
    eventually("it is counted there again", async || counted(&mut root).await).await;
}
