//! Destruction of a tenant's data keys with `keys destroy` (CRYPTO-08): its notes can no longer
//! be read or found, by any replica, and hold back no rotation.

use http::Method;
use palisade::ops::{Keys, ResealOptions};
use sample::access::roles;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::support::{
    ACME, COUNT_INDEXED, SERVICE, TestApp, add_notes, assert_notes_readable, copy_notes, during_transaction, id_of,
    keyset, note, query, run, run_as_superuser, run_keys, run_keys_binary, run_keys_binary_with, search, superuser,
    wait_for_lock_wait,
};

async fn destroy(app: &TestApp, reason: &str) -> Result<String, String> {
    let acme = ACME.id.to_string();
    run_keys_binary(app, &["destroy", &acme, "--reason", reason, "--confirm", &acme]).await
}

#[tokio::test]
async fn crypto_08_destruction_needs_a_confirmation_and_has_a_dry_run() {
    let app = SERVICE.start().await;
    let admin = app.user(roles::ADMIN);
    let create = admin.request(Method::POST, "/v1/notes").header("idempotency-key", "first").json(&note(1));
    let path = format!("/v1/notes/{}", admin.send(create).await.ok(201)["id"].as_str().unwrap());
    let acme = ACME.id.to_string();
    let dry = run_keys_binary(&app, &["destroy", &acme, "--dry-run"]).await.unwrap();
    for line in ["data keys: 1", "rows of notes: 4", "stored responses: 1", "last change: 20"] {
        assert!(dry.contains(&format!("{acme}: {line}")), "{line}: {dry}");
    }
    let unknown = uuid::Uuid::from_u128(7).to_string();
    let error = run_keys_binary(&app, &["destroy", &unknown, "--dry-run"]).await.unwrap_err();
    assert!(error.contains("never a data key of this tenant"), "{error}");
    for (confirm, message) in [
        (&[][..], "give `--confirm`"),
        (&["--confirm", "yes"], "the confirmation differs"),
        (&["--confirm", &unknown], "the confirmation differs"),
    ] {
        let arguments = [&["destroy", &acme, "--reason", "they left"][..], confirm].concat();
        let error = run_keys_binary(&app, &arguments).await.unwrap_err();
        assert!(error.contains(message) && error.contains("nothing was done"), "{error}");
    }
    // Nothing has changed.
    admin.get(&path).await.ok(200);
    let done = destroy(&app, "they left").await.unwrap();
    assert!(done.contains("1 data keys destroyed") && done.contains("deleted 1 stored responses"), "{done}");
    assert_eq!(query(&app.database.owner, "select key from palisade.idempotency_keys").await, [""; 0]);
}

#[tokio::test]
async fn crypto_08_notes_of_a_destroyed_tenant_cannot_be_read_or_found() {
    let app = SERVICE.start().await;
    let paths = add_notes(&app, 1).await;
    assert!(destroy(&app, " ").await.unwrap_err().contains("the reason must have"));
    // An unknown tenant is an error: with a mistyped id the operator would believe the keys
    // destroyed.
    let unknown = uuid::Uuid::from_u128(7).to_string();
    let arguments = ["destroy", &unknown, "--reason", "they left", "--confirm", &unknown];
    let error = run_keys_binary(&app, &arguments).await.unwrap_err();
    assert!(error.contains("never a data key of this tenant"), "{error}");
    for tenant in [&unknown, &ACME.id.to_string()] {
        let delete = format!("select palisade.delete_stored_responses('{tenant}')");
        let error = run(&app.database.operator, &delete).await.unwrap_err().to_string();
        assert!(error.contains("the data keys of this tenant are not destroyed"), "{error}");
    }
    let done = destroy(&app, "they left").await.unwrap();
    assert!(done.contains("1 data keys destroyed") && done.contains("removed 4 records"), "{done}");
    let again = destroy(&app, "once more").await.unwrap();
    assert!(again.contains("0 data keys destroyed") && again.contains("removed 0 records"), "{again}");
    let replica = SERVICE.start_on(app.database.clone(), &[]).await;
    let admin = replica.user(roles::ADMIN);
    assert_eq!(admin.get(&paths[0]).await.problem(404), "not_found");
    assert_eq!(admin.get("/v1/notes").await.problem(404), "not_found");
    let change = admin.request(Method::PATCH, &paths[0]).json(&json!({ "phone": "+491771234567" }));
    assert_eq!(admin.send(change).await.problem(404), "not_found");
    // The blind index no longer shows which notes share an e-mail address.
    assert!(search(&admin, "person-0@example.com").await.is_empty());
    assert_eq!(query(&app.database.owner, COUNT_INDEXED).await, ["0"]);
    // What is not encrypted stays.
    assert_eq!(admin.get("/v1/items/PAPER-A4").await.ok(200)["notes"], 4);
    // No new data key replaces a destroyed one. Otherwise a restored key and a new key could have
    // the same version, and only half of the tenant's notes would be readable.
    assert_eq!(replica.user(roles::WRITER).post("/v1/notes", &note(2)).await.problem(404), "not_found");
    let left =
        format!("select concat(version, wrapped is null) from palisade.data_keys where of_tenant = '{}'", ACME.id);
    assert_eq!(query(&app.database.owner, &left).await, ["1t"]);
    let options = ResealOptions::new(Some(ACME.id.uuid()));
    let error = run_keys(&app, Keys::Rotate { options }, &[]).await.unwrap_err();
    assert!(error.contains("no encrypted data"), "{error}");
    run_keys(&app, Keys::Rotate { options: ResealOptions::new(None) }, &[]).await.unwrap();
    // The notes can still be erased.
    assert_eq!(admin.send(admin.request(Method::DELETE, &paths[0])).await.status, 204);
}

/// A replica caches data keys for a minute, and which is the newest for five seconds.
#[tokio::test]
async fn crypto_08_replicas_store_nothing_with_a_cached_destroyed_data_key() {
    let app = SERVICE.start().await;
    let paths = add_notes(&app, 2).await;
    // The command waits for a transaction that is storing a note.
    let mut storing = superuser(&app.database).await;
    let store = format!("begin; {}", copy_notes(1));
    sqlx::raw_sql(sqlx::AssertSqlSafe(store)).execute(&mut storing).await.unwrap();
    let finish = async {
        wait_for_lock_wait(&app.database).await;
        let exists = "select (wrapped is not null)::text from palisade.data_keys
                      where of_tenant = (select palisade.current_tenant())";
        assert_eq!(query(&app.database.owner, exists).await, ["true"], "nothing is destroyed yet");
        // Other tenants get data keys in the meantime.
        let add = "insert into palisade.data_keys select gen_random_uuid(), 1, wrapped_by, wrapped, now()
                   from palisade.data_keys limit 1";
        run(&app.database.keys, add).await.unwrap();
        sqlx::raw_sql("commit").execute(&mut storing).await.unwrap();
    };
    let (destroyed, ()) = tokio::join!(destroy(&app, "they left"), finish);
    assert!(destroyed.unwrap().contains("removed 6 records"));
    let sales = app.user(roles::WRITER);
    let admin = app.user(roles::ADMIN);
    assert_eq!(sales.post("/v1/notes", &note(3)).await.problem(404), "not_found");
    let change = admin.request(Method::PATCH, &paths[1]).json(&json!({ "email": "other@example.com" }));
    assert_eq!(admin.send(change).await.problem(404), "not_found");
    assert_eq!(admin.get(&paths[1]).await.problem(404), "not_found");
    assert_eq!(query(&app.database.owner, COUNT_INDEXED).await, ["0"]);
}

/// A reseal cannot decrypt its notes, so their index entries would hold the index key forever.
#[tokio::test]
async fn crypto_08_destroyed_tenants_do_not_hold_an_index_key() {
    let app = SERVICE.start().await;
    add_notes(&app, 1).await;
    let new = keyset(2);
    let both = format!("{new},{}", app.database.index_keys.expose_secret());
    // The state that an interrupted command, or an older version of it, leaves behind.
    let destroyed = format!(
        "{}; update palisade.data_keys set wrapped = null, destroyed_at = now() where of_tenant = '{}'",
        copy_notes(2000),
        ACME.id
    );
    run_as_superuser(&app, destroyed).await;
    let with_both = [("APP_KEYS__INDEX", both.as_str())];
    SERVICE.start_on(app.database.clone(), &with_both).await;
    run_keys(&app, Keys::Reseal { options: ResealOptions::new(None) }, &with_both).await.unwrap();
    let forget = async || run_keys_binary_with(&app, &["forget-index", "1"], Some(&both)).await;
    let error = forget().await.unwrap_err();
    assert!(error.contains("or `keys destroy` again if their tenant has left"), "{error}");
    let done = destroy(&app, "they left").await.unwrap();
    assert!(done.contains("removed 2004 records"), "{done}");
    forget().await.unwrap();
    let last = SERVICE.start_on(app.database.clone(), &[("APP_KEYS__INDEX", &new)]).await;
    assert_eq!(last.user(roles::ADMIN).get("/v1/notes").await.problem(404), "not_found");
}

/// An operator restores the data keys after destroying those of the wrong tenant.
#[tokio::test]
async fn crypto_08_restored_data_keys_make_notes_readable_again() {
    let app = SERVICE.start().await;
    let paths = add_notes(&app, 2).await;
    run_as_superuser(
        &app,
        "create schema backup; create table backup.data_keys as select * from palisade.data_keys".to_owned(),
    )
    .await;
    destroy(&app, "the wrong one").await.unwrap();
    let back = "update palisade.data_keys k set wrapped = b.wrapped, destroyed_at = null from backup.data_keys b
                where b.of_tenant = k.of_tenant and b.version = k.version";
    run_as_superuser(&app, back.to_owned()).await;
    let replica = SERVICE.start_on(app.database.clone(), &[]).await;
    assert_eq!(replica.user(roles::ADMIN).get(&paths[0]).await.problem(404), "not_found");
    let output = run_keys(&app, Keys::Reseal { options: ResealOptions::new(None) }, &[]).await.unwrap().concat();
    assert!(output.contains("done, 5 records re-encrypted"), "{output}");
    assert_notes_readable(&replica, &paths).await;
}

/// A note that is being erased has no index entries left to clear.
#[tokio::test]
async fn crypto_08_destruction_and_erasure_do_not_deadlock() {
    let app = SERVICE.start().await;
    let paths = add_notes(&app, 2).await;
    let erase = format!(
        "update notes set remark = null, email = null, phone = null, email_index = null, erased_at = now()
         where id = '{}'",
        id_of(&paths[1])
    );
    let destroyed = during_transaction(&app.database, &erase, "", destroy(&app, "they left")).await;
    assert!(destroyed.unwrap().contains("removed 4 records"));
    assert_eq!(query(&app.database.owner, COUNT_INDEXED).await, ["0"]);
}

/// A rotation has created a newer data key since the other transaction began.
#[tokio::test]
async fn crypto_08_destruction_waits_for_writers_with_older_data_keys() {
    let app = SERVICE.start().await;
    let next = "insert into palisade.data_keys select of_tenant, 2, wrapped_by, wrapped, now() from palisade.data_keys";
    let rotated = async {
        run(&app.database.keys, next).await.unwrap();
        destroy(&app, "they left").await
    };
    let destroyed = during_transaction(&app.database, &copy_notes(1), "", rotated).await;
    assert!(destroyed.unwrap().contains("removed 4 records"));
}
