//! Reload of secrets under load (SECRET-04): passwords, keys and certificates change in the files
//! of a running process, no request fails, and unusable values are rejected.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use palisade::{
    crypto::{MasterKeys, WrappedDataKey},
    model::Clock,
    ops::{Keys, ResealOptions},
    store,
};
use sample::access::{roles, scopes};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::{
    ACME, Actor, Authority, Credential, FileSecretsService, GLOBEX, Logins, PemFiles, Redis, SERVICE, TestApp,
    eventually, keyset, note_body, person, query, run, search, superuser,
};

const LOGINS: [&str; 4] = Logins::ALL;

fn note_with_email(email: &str) -> Value {
    let mut note = note_body("PAPER-A4", 1);
    note["email"] = json!(email);
    note
}

/// Sends requests that need each login until `done`, and asserts that each succeeds; returns their
/// number.
async fn load(admin: &Actor, address: std::net::SocketAddr, done: &AtomicBool) -> usize {
    let mut calls = 0;
    while !done.load(Ordering::Relaxed) {
        let created = admin.post("/v1/notes", &note_with_email("new@example.com")).await.ok(201);
        let path = format!("/v1/notes/{}", created["id"].as_str().unwrap());
        assert_eq!(admin.get(&path).await.ok(200)["email"], "new@example.com");
        admin.get("/v1/notes?limit=5").await.ok(200);
        calls += 3;
        tokio::time::sleep(Duration::from_millis(20)).await;
        if calls % 30 == 0 {
            let key = json!({ "name": "for a test", "scopes": ["notes:read"], "validForDays": 1 });
            let made = admin.post("/v1/api-keys", &key).await.ok(201);
            let key = Credential::ApiKey(made["key"].as_str().unwrap().to_owned());
            Actor::with_credential(address, Some(key)).get("/v1/notes?limit=1").await.ok(200);
        }
    }
    calls
}

#[tokio::test]
async fn secret_04_logins_change_under_load_and_old_connections_are_closed() {
    let database = SERVICE.database().await;
    let mut root = superuser(&database).await;
    let old = Logins::new().create(&mut root).await;
    let new = Logins::new().create(&mut root).await;
    let mut service = FileSecretsService::start(old.urls(database), "100", &[]).await;
    let admin = service.admin();
    let address = service.process.address;
    let done = AtomicBool::new(false);
    let change = async {
        assert_ne!(old.connection_count(&service.database).await, "0");
        service.write_urls(&new);
        for login in LOGINS {
            let secret = format!("DATABASE__{}_URL", login.to_uppercase());
            service.wait_for_event("secret_renewed", &secret).await;
            for component in ["serve", "reload"] {
                let read = service.process.wait_for_event("secret_read", &format!("APP_{secret}")).await;
                assert_eq!(read["component"], component);
                assert!(read["source"].as_str().unwrap().ends_with(&secret), "{read}");
            }
        }
        for login in LOGINS {
            service.wait_for_event("secret_retired", &format!("DATABASE__{}_URL", login.to_uppercase())).await;
        }
        // After the event the old logins can be dropped.
        eventually("old connections are closed", async || old.connection_count(&service.database).await == "0").await;
        old.drop_roles(&mut root).await;
        assert_ne!(new.connection_count(&service.database).await, "0");
        done.store(true, Ordering::Relaxed);
    };
    let send = || load(&admin, address, &done);
    let (first, second, third, ()) = tokio::join!(send(), send(), send(), change);
    assert!(first.min(second).min(third) > 20, "{first} {second} {third}");
    let (status, log) = service.process.terminate().await;
    assert!(status.success() && !log.contains("secret_renewed"), "{log}");
    new.drop_roles(&mut root).await;
}

#[tokio::test]
async fn secret_04_password_changes_without_a_failed_request() {
    let database = SERVICE.database().await;
    let mut root = superuser(&database).await;
    let mut logins = Logins::new().create(&mut root).await;
    let mut service = FileSecretsService::start(logins.urls(database), "3600000", &[]).await;
    let before = service.url("reader");
    // The reload interval is an hour: a rejected connection triggers the reload.
    logins.password = Logins::random_password();
    service.write_urls(&logins);
    for login in LOGINS {
        let alter = format!("alter role {} password '{}'", logins.name(login), logins.password);
        sqlx::raw_sql(AssertSqlSafe(alter)).execute(&mut root).await.unwrap();
    }
    assert!(run(&before.into(), "select 1").await.is_err(), "the old password still works");
    // More concurrent requests than existing connections, so that new connections are opened.
    let admin = service.admin();
    let read = async || admin.get("/v1/notes").await.ok(200);
    let write = async |n| admin.post("/v1/notes", &note_with_email(&format!("person-{n}@example.com"))).await.ok(201);
    tokio::join!(read(), read(), read(), read(), write(1), write(2), write(3), write(4));
    for login in ["writer", "reader"] {
        service.wait_for_event("secret_renewed", &format!("DATABASE__{}_URL", login.to_uppercase())).await;
    }
    let (status, log) = service.process.terminate().await;
    assert!(status.success(), "{log}");
    logins.drop_roles(&mut root).await;
}

#[tokio::test]
async fn secret_04_sighup_reloads_keys_and_certificates_and_rejects_unusable_ones() {
    let first = Authority::new();
    let second = Authority::new();
    let pem = PemFiles::new(first.sign());
    let certificate = pem.certificate();
    let key = pem.key();
    let tls =
        [("APP_TLS__CERTIFICATE_PATH", certificate.to_str().unwrap()), ("APP_TLS__KEY_PATH", key.to_str().unwrap())];
    let mut service = FileSecretsService::start(SERVICE.database().await, "3600000", &tls).await;
    let address = service.process.address;
    let token = service.issuer.access_token(&person(&ACME, roles::ADMIN), &scopes::ALL);
    let admin = |authority: &Authority| {
        Actor::over_tls(authority.client(address).build().unwrap(), address.port(), Some(token.clone()))
    };
    let notes = async || admin(&first).get("/v1/notes?limit=100").await.ok(200);
    let master = service.files.read("KEYS__MASTER");
    let index = service.files.read("KEYS__INDEX");
    let new_master = keyset(2);
    admin(&first).post("/v1/notes", &note_with_email("found@example.com")).await.ok(201);
    // Keysets without the key that wraps the data keys, and without the index key in use.
    service.files.write("KEYS__MASTER", &new_master);
    service.files.write("KEYS__INDEX", &keyset(1));
    service.process.send_sighup();
    let reason = service.wait_for_event("secret_not_renewed", "KEYS__MASTER").await;
    assert!(reason.contains("keyset:1"), "{reason}");
    let reason = service.wait_for_event("secret_not_renewed", "KEYS__INDEX").await;
    assert!(reason.contains("index"), "{reason}");
    // Another key with the version of the key in use.
    service.files.write("KEYS__MASTER", &keyset(1));
    service.process.send_sighup();
    let reason = service.wait_for_event("secret_not_renewed", "KEYS__MASTER").await;
    assert!(reason.contains("cannot be unwrapped with master key keyset:1"), "{reason}");
    // A file that is half written.
    service.files.write("KEYS__MASTER", "2:");
    service.process.send_sighup();
    let reason = service.wait_for_settings_fault().await;
    assert!(reason.contains("APP_KEYS__MASTER"), "{reason}");
    notes().await;

    service.files.write("KEYS__MASTER", &format!("{new_master},{master}"));
    service.files.write("KEYS__INDEX", &format!("{},{index}", keyset(2)));
    let (certificate, key) = second.sign();
    pem.write(certificate, key);
    service.process.send_sighup();
    for secret in ["KEYS__MASTER", "KEYS__INDEX"] {
        service.wait_for_event("secret_renewed", secret).await;
    }
    eventually("the new certificate is used", async || admin(&second).can_connect().await).await;
    assert!(!admin(&first).can_connect().await, "the old certificate is still used");
    // The service unwraps data keys that only the new master key can unwrap.
    let mut variables = TestApp::variables(&service.database, service.issuer.url());
    for secret in ["KEYS__MASTER", "KEYS__INDEX"] {
        variables.insert(format!("APP_{secret}"), service.files.read(secret));
    }
    rotate_data_keys(variables).await;
    let wrapped = "select concat(version, ' ', wrapped_by) from palisade.data_keys order by of_tenant, version";
    let wrapped = query(&service.database.owner, wrapped).await;
    assert!(wrapped.contains(&"2 keyset:2".to_owned()), "{wrapped:?}");
    let shown = admin(&second).get("/v1/notes?limit=100").await.ok(200);
    assert!(shown["items"].as_array().unwrap().iter().all(|note| note["masked"] == true), "{shown}");
    // It finds notes that are indexed with the new index key only.
    assert_eq!(search(&admin(&second), "found@example.com").await.len(), 1);
    let used = "select distinct data_key::text from palisade.row_keys";
    assert_eq!(query(&service.database.owner, used).await, ["2"]);
}

async fn rotate_data_keys(variables: BTreeMap<String, String>) {
    let service = sample::app();
    let settings = service.read_settings(variables).unwrap();
    let rotate = Keys::Rotate { options: ResealOptions::new(Some(ACME.id.uuid())) };
    rotate.run(&settings, service.sealed_tables(), None, &Clock::system(), |_| {}).await.unwrap();
}

/// Two replicas had different master keys with the same version, and each has wrapped one tenant's
/// data key. A reload that replaces one by the other must be rejected, whichever data key it tests.
#[tokio::test]
async fn secret_04_reload_keeps_every_master_key_in_use() {
    let current = keyset(2);
    let other = keyset(2);
    for tenant_of_current in [ACME.id, GLOBEX.id] {
        let urls = SERVICE.database().await;
        let first = urls.master_keys.expose_secret().to_owned();
        let settings = |first: &str, more: &str| {
            let mut variables = TestApp::variables(&urls, "http://127.0.0.1:9");
            variables.insert("APP_KEYS__MASTER".to_owned(), format!("{first},{more}"));
            sample::app().read_settings(variables).unwrap()
        };
        let (_, maintenance) =
            store::maintenance::open(&settings(&current, &first), sample::app().sealed_tables(), Clock::system())
                .unwrap();
        let mut root = superuser(&urls).await;
        let rows: Vec<(Uuid, i32, String, Vec<u8>)> =
            sqlx::query_as("select of_tenant, version, wrapped_by, wrapped from palisade.data_keys")
                .fetch_all(&mut root)
                .await
                .unwrap();
        for (tenant, version, wrapped_by, wrapped) in rows {
            let key = if tenant == tenant_of_current.uuid() { &current } else { &other };
            let master = MasterKeys::new(&settings(key, &first).keys.master).unwrap();
            let old = WrappedDataKey { version, wrapped_by, wrapped };
            let new = master.rewrap("keyset:2", tenant, &old).await.unwrap().unwrap();
            sqlx::query("update palisade.data_keys set wrapped_by = $2, wrapped = $3 where of_tenant = $1")
                .bind(tenant)
                .bind(new.wrapped_by)
                .bind(new.wrapped)
                .execute(&mut root)
                .await
                .unwrap();
        }
        let error = maintenance.reload_master_keys(&settings(&other, &first).keys.master).await.unwrap_err();
        assert!(error.to_string().contains("cannot be unwrapped with master key keyset:2"), "{error}");
        // A data key that does not unwrap before the reload either stops neither a reload nor a
        // start.
        let third = || settings(&keyset(3), &format!("{current},{first}")).keys.master;
        maintenance.reload_master_keys(&third()).await.unwrap();
        let error = maintenance.reload_master_keys(&third()).await.unwrap_err();
        assert!(error.to_string().contains("keyset:3 does not match"), "{error}");
        let (_, restarted) =
            store::maintenance::open(&settings(&current, &first), sample::app().sealed_tables(), Clock::system())
                .unwrap();
        restarted.validate().await.unwrap();
    }
}

#[tokio::test]
async fn secret_04_reload_changes_passwords_but_no_other_part_of_a_url() {
    let database = SERVICE.database().await;
    let mut root = superuser(&database).await;
    let logins = Logins::new().create(&mut root).await;
    let mut service = FileSecretsService::start(database, "100", &[]).await;
    let admin = service.admin();
    let broken = service.url("authn").replace(':', ":0");
    let other_database = SERVICE.database().await;
    let without_tls = service.url("reader") + "?sslmode=disable";
    let owner = service.database.owner.clone();
    let operator = service.database.operator.clone();
    let other_reader = logins.url("reader", service.database.reader.expose_secret());
    let mac_key = keyset(1);
    for (secret, text, expected) in [
        ("DATABASE__READER_URL", other_database.reader.expose_secret(), "database name or a parameter"),
        ("DATABASE__WRITER_URL", owner.expose_secret(), "login app_owner has rights"),
        ("DATABASE__WRITER_URL", &other_reader, "has rights that rights.txt does not list"),
        ("DATABASE__KEYS_URL", operator.expose_secret(), "app_operator"),
        ("DATABASE__AUTHN_URL", &broken, ""),
        ("SECRETS__MAC_KEY", &mac_key[2..], "needs a restart"),
        ("DATABASE__READER_URL", &without_tls, "a parameter of the URL changed"),
    ] {
        let before = service.files.read(secret);
        service.files.write(secret, text);
        let reason = match expected {
            "" => service.wait_for_settings_fault().await,
            _ => service.wait_for_event("secret_not_renewed", secret).await,
        };
        assert!(reason.contains(expected), "{secret}: {reason}");
        // The previous secret stays in use.
        admin.get("/v1/notes").await.ok(200);
        admin.post("/v1/notes", &note_with_email("new@example.com")).await.ok(201);
        service.files.write(secret, &before);
    }
    // The rejection is logged once, however often the files are checked.
    service.files.write("DATABASE__WRITER_URL", owner.expose_secret());
    service.wait_for_event("secret_not_renewed", "DATABASE__WRITER_URL").await;
    let both = format!("{},{}", service.files.read("KEYS__INDEX"), keyset(2));
    service.files.write("KEYS__INDEX", &both);
    service.wait_for_event("secret_renewed", "KEYS__INDEX").await;
    let lines = &service.process.log_lines;
    assert!(lines.iter().all(|line| line["event"] != "secret_not_renewed"), "{lines:?}");
    let (status, log) = service.process.terminate().await;
    assert!(status.success() && !log.contains("secret_not_renewed"), "{log}");
    assert!(!log.contains("secret_renewed"), "{log}");
}

#[tokio::test]
async fn secret_04_quota_store_password_changes_without_a_restart() {
    let passwords = [Logins::random_password(), Logins::random_password()];
    let Some(redis) = Redis::start_with(&[], &["--requirepass", &passwords[0]]).await else { return };
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}", redis.port);
    let client = redis::Client::open(url(&passwords[0])).unwrap();
    let mut root = client.get_multiplexed_async_connection().await.unwrap();
    // A low quota, whose bucket takes long enough to refill that its key is still there.
    let store = [("APP_QUOTA__REDIS_URL", &*url(&passwords[0])), ("APP_QUOTA__READ_PER_MINUTE", "100")];
    let mut service = FileSecretsService::start(SERVICE.database().await, "100", &store).await;
    let admin = service.admin();
    // Whether the store counts a request.
    let is_counted = async |root: &mut redis::aio::MultiplexedConnection| {
        redis::cmd("FLUSHALL").arg("SYNC").query_async::<()>(root).await.unwrap();
        admin.get("/v1/me").await.ok(200);
        let keys: Vec<String> = redis::cmd("KEYS").arg("*:read:*").query_async(root).await.unwrap();
        keys.len() == 1
    };
    assert!(is_counted(&mut root).await);
    service.files.write("QUOTA__REDIS_URL", &url(&passwords[0]).replace("127.0.0.1", "127.0.0.2"));
    let reason = service.wait_for_event("secret_not_renewed", "QUOTA__REDIS_URL").await;
    assert!(reason.contains("quota store changed"), "{reason}");
    service.files.write("QUOTA__REDIS_URL", &url(&passwords[1]));
    let reason = service.wait_for_event("secret_not_renewed", "QUOTA__REDIS_URL").await;
    assert!(reason.contains("rejects the new credentials"), "{reason}");
    assert!(is_counted(&mut root).await);
    let set = redis::cmd("CONFIG").arg("SET").arg("requirepass").arg(&passwords[1]).to_owned();
    set.query_async::<()>(&mut root).await.unwrap();
    service.wait_for_event("secret_renewed", "QUOTA__REDIS_URL").await;
    assert!(is_counted(&mut root).await);
    // The service reconnects with the new password.
    let kill = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes").to_owned();
    kill.query_async::<()>(&mut root).await.unwrap();
    eventually("requests are counted again", async || is_counted(&mut root).await).await;
}
