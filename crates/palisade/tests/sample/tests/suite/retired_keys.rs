//! Removal of keys that no row needs: `keys drop` for data keys (CRYPTO-05) and `keys forget-index`
//! for index keys (CRYPTO-06). The binary runs with the operator's login alone; the database itself
//! protects keys in use.

use http::Method;
use palisade::ops::{Keys, ResealOptions};
use sample::access::roles;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::support::{
    ACME, COUNT_INDEXED, INDEX_KEY, SERVICE, add_notes, during_transaction, id_of, keyset, note, notes_by_key, query,
    run, run_as_superuser, run_keys, run_keys_binary, run_keys_binary_with, search, start_error, superuser,
};

#[tokio::test]
async fn crypto_05_data_keys_in_use_cannot_be_dropped() {
    let app = SERVICE.start().await;
    // The state after a rotation that stopped before its first batch.
    let add = format!(
        "insert into palisade.data_keys select of_tenant, 2, wrapped_by, wrapped, now() from palisade.data_keys
         where of_tenant = '{}'",
        ACME.id
    );
    run(&app.database.owner, &add).await.unwrap();
    let acme = ACME.id.to_string();
    let drop = async |version| run_keys_binary(&app, &["drop", &acme, version]).await.unwrap_err();
    let refused = drop("1").await;
    assert!(refused.contains("records are encrypted with it") && refused.contains("keys reseal"), "{refused}");
    // New notes get the newest data key, so it is in use even without a note. Key 3 is
    // unknown.
    for version in ["2", "3"] {
        let refused = drop(version).await;
        assert!(refused.contains(&format!("cannot remove data key {version}")), "{refused}");
    }
    assert_eq!(app.user(roles::ADMIN).get("/v1/notes").await.ok(200)["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn crypto_05_replicas_cannot_seal_with_a_dropped_data_key() {
    let app = SERVICE.start().await;
    let tenant = ACME.id.uuid();
    let sales = app.user(roles::WRITER);
    // The replica now caches data key 1 as the newest, for five seconds.
    sales.post("/v1/notes", &note(1)).await.ok(201);
    let next = format!(
        "begin; delete from palisade.row_keys where tenant_id = '{tenant}';
         insert into palisade.data_keys select of_tenant, 2, wrapped_by, wrapped, now() from palisade.data_keys
         where of_tenant = '{tenant}';
         commit"
    );
    run_as_superuser(&app, next).await;
    run_keys_binary(&app, &["drop", &tenant.to_string(), "1"]).await.unwrap();
    let reply = sales.post("/v1/notes", &note(2)).await;
    assert_eq!(reply.problem(503), "unavailable");
    let sealed = query(&app.database.owner, "select data_key::text from palisade.row_keys where data_key = 1").await;
    assert_eq!(sealed, Vec::<String>::new());
}

/// The database enforces this for each login that can write the columns.
#[tokio::test]
async fn crypto_06_database_enforces_index_entries_with_existing_keys() {
    let app = SERVICE.start().await;
    let sql_error = async |login, sql: &str| {
        let sql = format!("set local app.tenant_id = '{}'; {sql}", ACME.id);
        run(login, &sql).await.unwrap_err().to_string()
    };
    let forgotten = "insert into palisade.index_keys select 7, check_value, now() from palisade.index_keys";
    run_as_superuser(&app, forgotten.to_owned()).await;
    for (change, message) in [
        ("notes set email = null where email_index is not null", "index_needs_email"),
        ("palisade.row_keys set index_key = 9", "index_key_in_use"),
        ("palisade.row_keys set index_key = 7", "index_key_in_use"),
    ] {
        let error = sql_error(&app.database.writer, &format!("update {change}")).await;
        assert!(error.contains(message), "{change}: {error}");
    }
    // The operator's login can clear indexes only of tenants whose data keys are destroyed: neither
    // of an existing tenant nor of one that never existed.
    for tenant in [ACME.id.uuid(), uuid::Uuid::from_u128(7)] {
        let clear = format!("select palisade.clear_blind_indexes('{tenant}', 1000)");
        let error = sql_error(&app.database.operator, &clear).await;
        assert!(error.contains("are not destroyed"), "{error}");
    }
    // The database itself refuses to retire or delete a key in use, for each login.
    let forget = "update palisade.index_keys set forgotten_at = now() where version = 1";
    for isolation in ["read committed", "repeatable read"] {
        let forget = format!("set transaction isolation level {isolation}; {forget}");
        let error = run(&app.database.operator, &forget).await.unwrap_err().to_string();
        assert!(error.contains("index_key_in_use"), "{error}");
    }
    let error = sql_error(&app.database.operator, "delete from palisade.index_keys").await;
    assert!(error.contains("permission denied"), "{error}");
    let error = sql_error(&app.database.owner, "delete from palisade.index_keys").await;
    assert!(error.contains("index_key_in_use"), "{error}");
    assert_ne!(query(&app.database.owner, COUNT_INDEXED).await, ["0"]);
}

/// Race: each command sees a second key, the one that the other command removes.
#[tokio::test]
async fn crypto_06_concurrent_commands_keep_the_last_index_key() {
    let app = SERVICE.start().await;
    let two_keys = "update palisade.row_keys set index_key = null;
                    update palisade.index_keys set forgotten_at = now();
                    insert into palisade.index_keys select v, check_value
                    from palisade.index_keys, (values (7), (8)) n (v)";
    run_as_superuser(&app, two_keys.to_owned()).await;
    let other = keyset(2);
    let second = run_keys_binary_with(&app, &["forget-index", "8"], Some(&other));
    let first = "select from palisade.index_keys for no key update;
                 update palisade.index_keys set forgotten_at = now() where version = 7";
    let second = during_transaction(&app.database, first, "", second).await;
    assert!(second.unwrap_err().contains("it is the only index key"));
    assert_eq!(
        query(&app.database.keys, "select version::text from palisade.index_keys where forgotten_at is null").await,
        ["8"]
    );
}

/// Even if the command's `APP_KEYS__INDEX` is missing or differs from that of the replicas.
#[tokio::test]
async fn crypto_06_the_only_index_key_and_unknown_ones_cannot_be_forgotten() {
    let app = SERVICE.start().await;
    let replica = SERVICE.start_on(app.database.clone(), &[]).await;
    let other = keyset(2);
    for (version, index_keys, message) in [
        ("1", None, "APP_KEYS__INDEX: is required"),
        ("1", Some(app.database.index_keys.expose_secret()), "cannot remove index key 1: new records get it"),
        ("1", Some(&*other), "cannot remove index key 1: it is the only index key"),
        ("2", Some(app.database.index_keys.expose_secret()), "no index key of this version"),
    ] {
        let error = run_keys_binary_with(&app, &["forget-index", version], index_keys).await.unwrap_err();
        assert!(error.contains(message), "{version}: {error}");
    }
    replica.user(roles::WRITER).post("/v1/notes", &note(1)).await.ok(201);
}

#[tokio::test]
async fn crypto_06_replica_with_a_forgotten_index_key_cannot_store_or_restart() {
    let app = SERVICE.start().await;
    let paths = add_notes(&app, 1).await;
    let old = app.database.index_keys.expose_secret();
    let new = keyset(2);
    let both = format!("{new},{old}");
    let replica = SERVICE.start_on(app.database.clone(), &[("APP_KEYS__INDEX", &both)]).await;
    run_keys(&app, Keys::Reseal { options: ResealOptions::new(None) }, &[("APP_KEYS__INDEX", &both)]).await.unwrap();
    // An outdated replica is storing a note while the command runs.
    let forget = async || run_keys_binary_with(&app, &["forget-index", "1"], Some(&both)).await;
    let store = format!("update palisade.row_keys set index_key = 1 where row_id = '{}'", id_of(&paths[0]));
    let refused = during_transaction(&app.database, &store, "", forget()).await.unwrap_err();
    assert!(refused.contains("records are indexed with it; run `keys reseal`"), "{refused}");
    run_keys(&app, Keys::Reseal { options: ResealOptions::new(None) }, &[("APP_KEYS__INDEX", &both)]).await.unwrap();
    forget().await.unwrap();
    assert!(forget().await.unwrap_err().contains("no index key of this version, or it was forgotten"));
    let trail = "select count(*)::text from palisade.audit_events
                 where action = 'index_key_forgotten' and object = 'index key 1'";
    let trail: String = sqlx::query_scalar(trail).fetch_one(&mut superuser(&app.database).await).await.unwrap();
    assert_eq!(trail, "1");
    // The outdated replica cannot store rows that the other replicas would not find.
    let reply = app.user(roles::WRITER).post("/v1/notes", &note(2)).await;
    assert_eq!(reply.problem(503), "unavailable");
    let admin = app.user(roles::ADMIN);
    let change = admin.request(Method::PATCH, &paths[0]).json(&json!({ "email": "nine@example.com" }));
    assert_eq!(admin.send(change).await.problem(503), "unavailable");
    assert_eq!(notes_by_key(&app, INDEX_KEY).await, ["2: 4"]);
    // It restarts only with a list that does not begin with the forgotten key.
    for list in [old, &format!("{old},{new}")] {
        let error = start_error(&app, &[("APP_KEYS__INDEX", list)]).await;
        assert!(error.contains("index key 1 was forgotten") && error.contains("a new version"), "{error}");
    }
    for list in [&both, &new] {
        let replica = SERVICE.start_on(app.database.clone(), &[("APP_KEYS__INDEX", list)]).await;
        replica.user(roles::WRITER).post("/v1/notes", &note(3)).await.ok(201);
    }
    assert_eq!(search(&replica.user(roles::ADMIN), "person-3@example.com").await.len(), 2);
    let status = run_keys(&app, Keys::Status, &[("APP_KEYS__INDEX", &new)]).await.unwrap().join("\n");
    assert!(!status.contains("index key 1"), "{status}");
}
