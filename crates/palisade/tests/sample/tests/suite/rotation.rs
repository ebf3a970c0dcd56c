//! Rotation of data keys while the service runs (CRYPTO-05): `keys rotate` and `keys reseal` under
//! load, concurrently, after failures and with slow replicas.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http::Method;
use palisade::ops::{Keys, ResealOptions};
use sample::access::roles;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::support::{
    ACME, DATA_KEY, SERVICE, SHORT_TIMEOUTS, TestApp, UNTHROTTLED, add_notes, assert_notes_readable,
    during_transaction, id_of, keyset, note, notes_by_key, query, restore_note, run_as_superuser, run_keys,
    run_keys_binary, save_note, start_error, variables,
};

#[tokio::test]
async fn crypto_06_start_without_a_used_index_key_fails() {
    let app = SERVICE.start().await;
    let missing = start_error(&app, &[("APP_KEYS__INDEX", &keyset(2))]).await;
    assert!(missing.contains("index key 1 is missing"), "{missing}");
    let wrong = start_error(&app, &[("APP_KEYS__INDEX", &keyset(1))]).await;
    assert!(wrong.contains("index key 1 is not the key"), "{wrong}");
    // The failed startups stored nothing that prevents startup with the correct key.
    SERVICE.start_on(app.database.clone(), &[]).await;
}

/// Pause between two calls during a rotation, which leaves the machine to other tests.
const PACE: Duration = Duration::from_millis(20);

#[tokio::test]
async fn crypto_05_data_keys_rotate_under_load_and_the_old_key_can_be_dropped() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let paths = add_notes(&app, 120).await;
    let admin = app.user(roles::ADMIN);
    let done = AtomicBool::new(false);
    let options = ResealOptions::new(Some(ACME.id.uuid()));
    let reads = async {
        let mut pages = 0;
        while !done.load(Ordering::Relaxed) {
            let page = admin.get("/v1/notes?limit=100").await.ok(200);
            assert_eq!(page["items"][0]["masked"], true);
            pages += 1;
            tokio::time::sleep(PACE).await;
        }
        pages
    };
    let writes = async {
        let mut n = 0;
        let mut added = 0;
        while !done.load(Ordering::Relaxed) {
            let path = &paths[n % paths.len()];
            let change = json!({ "phone": format!("+4930{n:07}") });
            admin.send(admin.request(Method::PATCH, path).json(&change)).await.ok(200);
            assert_eq!(admin.get(path).await.ok(200)["phone"], change["phone"]);
            if n % 10 == 0 {
                admin.post("/v1/notes", &note(1_000)).await.ok(201);
                added += 1;
            }
            n += 1;
            tokio::time::sleep(PACE).await;
        }
        added
    };
    let rotation = async {
        // A second operator starts at the same time.
        let both =
            tokio::join!(run_keys(&app, Keys::Rotate { options }, &[]), run_keys(&app, Keys::Reseal { options }, &[]));
        done.store(true, Ordering::Relaxed);
        both
    };
    let (pages, added, (rotated, other)) = tokio::join!(reads, writes, rotation);
    assert!(pages > 1 && added > 1, "{pages} {added}");
    other.unwrap();
    let rotated = rotated.unwrap();
    assert_eq!(rotated[0], format!("{}: created data key 2", ACME.id));
    assert_notes_readable(&app, &paths).await;
    assert_eq!(notes_by_key(&app, DATA_KEY).await, [format!("2: {}", 3 + 120 + added)]);
    // Only a data key that no row needs can be dropped.
    let acme = ACME.id.to_string();
    let newest = run_keys_binary(&app, &["drop", &acme, "2"]).await.unwrap_err();
    assert!(newest.contains("cannot remove data key 2"), "{newest}");
    run_keys_binary(&app, &["drop", &acme, "1"]).await.unwrap();
    assert_notes_readable(&app, &paths).await;
    let status = run_keys(&app, Keys::Status, &[]).await.unwrap().join("\n");
    assert!(
        status.contains(&format!("{}: data key 2, wrapped by keyset:1: {} records", ACME.id, 123 + added)),
        "{status}"
    );
    assert!(!status.contains(&format!("{}: data key 1", ACME.id)), "{status}");
    // A new replica has nothing cached.
    let replica = SERVICE.start_on(app.database.clone(), &UNTHROTTLED).await;
    assert_notes_readable(&replica, &paths).await;
}

#[tokio::test]
async fn crypto_05_rotation_skips_undecryptable_notes() {
    let app = SERVICE.start().await;
    let paths = add_notes(&app, 60).await;
    let corrupt = format!(
        "update palisade.row_keys set wrapped = set_bit(wrapped, 200, 1 - get_bit(wrapped, 200)) where row_id = '{}'",
        id_of(&paths[30])
    );
    run_as_superuser(&app, corrupt).await;
    let error = run_keys(&app, Keys::Rotate { options: ResealOptions::new(None) }, &[]).await.unwrap_err();
    assert!(error.starts_with("1 records and 0 tenants could not be decrypted"), "{error}");
    assert_eq!(
        query(&app.database.owner, "select data_key::text from palisade.row_keys where data_key = 1").await,
        ["1"]
    );
    assert_eq!(notes_by_key(&app, DATA_KEY).await, ["1: 1", "2: 62"]);
}

/// A replica that cached the old data key concurrently with a rotation must not use it afterwards.
#[tokio::test]
async fn crypto_05_no_replica_uses_the_old_data_key_after_a_rotation() {
    let app = SERVICE.start().await;
    add_notes(&app, 1).await;
    run_keys(&app, Keys::Rotate { options: ResealOptions::new(None) }, &[]).await.unwrap();
    add_notes(&app, 1).await;
    assert_eq!(notes_by_key(&app, DATA_KEY).await, ["2: 5"]);
}

/// Adds a note and rotates data keys. Saves its row in the schemas `before` and `after`.
async fn save_around_rotation(app: &TestApp) -> String {
    let path = add_notes(app, 1).await.remove(0);
    run_as_superuser(app, save_note("before", id_of(&path))).await;
    run_keys(app, Keys::Rotate { options: ResealOptions::new(None) }, &SHORT_TIMEOUTS).await.unwrap();
    run_as_superuser(app, save_note("after", id_of(&path))).await;
    path
}

/// A replica has read the row before the rotation, then finds its data key gone. It must not
/// respond as if the note did not exist.
#[tokio::test]
async fn crypto_05_note_whose_data_key_is_being_dropped_is_not_reported_missing() {
    let app = SERVICE.start().await;
    let path = save_around_rotation(&app).await;
    for (method, status) in [(Method::PATCH, 200), (Method::GET, 503)] {
        run_as_superuser(&app, restore_note("before")).await;
        // A new replica has no data key cached, so it waits for the locked table.
        let replica = SERVICE.start_on(app.database.clone(), &[]).await;
        let admin = replica.user(roles::ADMIN);
        let request = admin.request(method.clone(), &path);
        let request = if method == Method::GET { request } else { request.json(&json!({ "remark": "Changed" })) };
        let lock = "lock table palisade.data_keys in access exclusive mode";
        let rotated = format!("{}; delete from palisade.data_keys where version = 1", restore_note("after"));
        let reply = during_transaction(&app.database, lock, &rotated, admin.send(request)).await;
        assert_eq!(reply.status, status, "{method}: {reply:#?}");
        let read = admin.get(&path).await.ok(200);
        assert_eq!((&read["remark"], &read["email"]), (&json!("Changed"), &json!("person-0@example.com")));
    }
}

/// A reseal that started with data key 2 must not overwrite rows of a later rotation.
#[tokio::test]
async fn crypto_05_reseal_keeps_rows_of_a_newer_rotation() {
    let app = SERVICE.start().await;
    let path = save_around_rotation(&app).await;
    let id = id_of(&path);
    let keep_only_this = format!(
        "{}; delete from palisade.row_keys where row_id <> '{id}'; delete from palisade.data_keys where version = 2",
        restore_note("before")
    );
    run_as_superuser(&app, keep_only_this).await;
    // With a new index key, so that the row needs work by either data key.
    let both = format!("{},{}", keyset(2), app.database.index_keys.expose_secret());
    let lock = format!("select from notes where id = '{id}' for update");
    let index_keys = [("APP_KEYS__INDEX", &*both)];
    let options = ResealOptions::new(Some(ACME.id.uuid()));
    let reseal = run_keys(&app, Keys::Reseal { options }, &index_keys);
    let output = during_transaction(&app.database, &lock, &restore_note("after"), reseal).await.unwrap().concat();
    assert!(output.contains("done, 0 records"), "{output}");
    assert_eq!(notes_by_key(&app, DATA_KEY).await, ["2: 1"]);
    // A corrupt data key affects its own notes only.
    run_keys(&app, Keys::Reseal { options }, &index_keys).await.unwrap();
    let paths = add_notes(&app, 1).await;
    let corrupt = format!(
        "{}; update palisade.data_keys set wrapped = set_bit(wrapped, 200, 1 - get_bit(wrapped, 200))
         where version = 1",
        restore_note("before")
    );
    run_as_superuser(&app, corrupt).await;
    let changes = [&SHORT_TIMEOUTS[..], &index_keys].concat();
    let error = run_keys(&app, Keys::Rotate { options }, &changes).await.unwrap_err();
    assert!(error.starts_with("1 records and 0 tenants could not be decrypted"), "{error}");
    assert_eq!(notes_by_key(&app, DATA_KEY).await, ["1: 1", "3: 1"]);
    assert_eq!(app.user(roles::ADMIN).get(&paths[0]).await.ok(200)["email"], "person-0@example.com");
}

/// A replica stores with the old data key later than its settings allow.
#[tokio::test]
async fn crypto_05_late_writes_of_slow_replicas_are_resealed_or_reported() {
    for (times, expected) in
        [(3, None), (1_000, Some("replicas still use an older data key, for 1 records before the last pass"))]
    {
        let app = SERVICE.start().await;
        let paths = add_notes(&app, 2).await;
        // A trigger restores the note's old row after each re-encryption, this number of times.
        let slow = format!(
            "create schema slow;
             create table slow.notes as select * from notes where id = '{id}';
             create table slow.keys as select * from palisade.row_keys where row_id = '{id}';
             create table slow.times as select {times} as n;
             create function slow.restore() returns trigger language plpgsql as $$ begin
                 update slow.times set n = n - 1 where n > 0
                     and exists (select from palisade.row_keys where row_id = '{id}' and data_key > 1);
                 if found then
                     update palisade.row_keys k set data_key = s.data_key, wrapped = s.wrapped from slow.keys s
                     where k.row_id = s.row_id;
                     update notes n set email = s.email, phone = s.phone from slow.notes s where n.id = s.id;
                 end if;
                 return null;
             end $$;
             create trigger slow after update on palisade.row_keys for each statement execute function slow.restore();
             grant usage on schema slow to app_writer;
             grant all on all tables in schema slow to app_writer",
            id = id_of(&paths[0])
        );
        run_as_superuser(&app, slow).await;
        let rotated = run_keys(&app, Keys::Rotate { options: ResealOptions::new(None) }, &SHORT_TIMEOUTS).await;
        assert_eq!(rotated.err().as_deref().map(|error| error.split(';').next().unwrap()), expected);
        let by_key = if expected.is_none() { &["2: 5"][..] } else { &["1: 1", "2: 4"] };
        assert_eq!(notes_by_key(&app, DATA_KEY).await, by_key);
        assert_notes_readable(&app, &paths).await;
    }
}

#[tokio::test]
async fn crypto_05_killed_rotation_can_be_resumed() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let paths = add_notes(&app, 300).await;
    let mut command = SERVICE.binary();
    let mut child = command
        .args(["keys", "rotate", "--tenant", &ACME.id.to_string()])
        .envs(variables(&app, &[("APP_LOG__FILTER", "off")]))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let progress = lines.find(|line| line.as_ref().unwrap().contains("50 records re-encrypted")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(progress.unwrap().ends_with(": 50 records re-encrypted"));
    let half = notes_by_key(&app, DATA_KEY).await;
    assert!(half.len() == 2, "only some notes have the new data key: {half:?}");
    assert_notes_readable(&app, &paths).await;
    run_keys(&app, Keys::Reseal { options: ResealOptions::new(None) }, &[]).await.unwrap();
    assert_eq!(notes_by_key(&app, DATA_KEY).await, ["2: 303"]);
    assert_notes_readable(&app, &paths).await;
}
