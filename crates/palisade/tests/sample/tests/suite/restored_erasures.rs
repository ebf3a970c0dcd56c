//! Erasure and backups (CRYPTO-08): what was erased or destroyed after a backup stays unreadable when
//! that backup is restored.

use std::fs;

use http::Method;
use palisade::{
    dev::database::Urls,
    ops::{Keys, ResealOptions},
};
use sample::access::{roles, scopes};
use serde_json::{Value, json};

use crate::support::{
    ACME, BackupFolder, GLOBEX, SERVICE, SHORT_TIMEOUTS, TestApp, add_notes, assert_fails, assert_notes_readable,
    assert_succeeds, empty_database, id_of, note, query, run_keys, run_keys_binary, search, superuser,
};

/// A service with three notes, and its backup `monday` with `monday-keys`. Then the first note was
/// erased, and the keys of Globex were destroyed.
struct Erased {
    app: TestApp,
    backups: BackupFolder,
    paths: Vec<String>,
}

impl Erased {
    async fn new() -> Self {
        let app = SERVICE.start_with(&SHORT_TIMEOUTS).await;
        let mut paths = add_notes(&app, 3).await;
        let admin = app.user(roles::ADMIN);
        // A note whose response is stored.
        let mut remarkable = note(3);
        remarkable["remark"] = json!("erased remark");
        let create = admin.request(Method::POST, "/v1/notes").header("idempotency-key", "first").json(&remarkable);
        let created = admin.send(create).await.ok(201);
        paths.push(format!("/v1/notes/{}", created["id"].as_str().unwrap()));
        let backups = BackupFolder::new().await;
        assert_succeeds(&backups.backup(&app.database.backup, "monday", "monday-keys"));
        assert_eq!(admin.send(admin.request(Method::DELETE, &paths[3])).await.status, 204);
        let globex = GLOBEX.id.to_string();
        run_keys_binary(&app, &["destroy", &globex, "--reason", "they left", "--confirm", &globex]).await.unwrap();
        Self { app, backups, paths }
    }

    async fn restore(&self, arguments: &[&str]) -> (Urls, String) {
        let target = empty_database().await;
        let output = assert_succeeds(&self.backups.restore(&target, &[arguments, &["monday"]].concat()));
        (target, output)
    }

    /// Asserts that a service on this database reads everything but what was erased.
    async fn assert_erased(&self, database: &Urls) {
        let replica = SERVICE.start_on(database.clone(), &[]).await;
        assert_notes_readable(&replica, &self.paths[..3]).await;
        let admin = replica.user(roles::ADMIN);
        assert_eq!(admin.get(&self.paths[3]).await.problem(404), "not_found");
        assert_eq!(search(&admin, "person-3@example.com").await, Vec::<Value>::new());
        let globex = replica.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
        assert_eq!(globex.get("/v1/notes").await.problem(404), "not_found");
        // The plain text beside the sealed fields, the index entries and the stored response are
        // gone too.
        let left = format!(
            "select concat(num_nonnulls(remark, email, phone, email_index), erased_at is not null) from notes
             where id = '{}'",
            id_of(&self.paths[3])
        );
        assert_eq!(query(&database.owner, &left).await, ["0t"]);
        let responses = "select concat(count(*), ' ', count(body)) from palisade.idempotency_keys where key = 'first'";
        assert_eq!(query(&database.owner, responses).await, ["1 0"]);
        let mut root = superuser(database).await;
        let indexed = "select count(*) from notes where email_index is not null and tenant_id = $1";
        let indexed: i64 = sqlx::query_scalar(indexed).bind(GLOBEX.id.uuid()).fetch_one(&mut root).await.unwrap();
        assert_eq!(indexed, 0);
    }
}

const AGAIN: &str = "erased again: 1 rows, of 10 with sealed fields; keys of 1 tenants";

#[tokio::test]
async fn crypto_08_restored_backup_lacks_what_was_erased_since() {
    let erased = Erased::new().await;
    assert_succeeds(&erased.backups.backup_keys(&erased.app.database, "friday-keys"));
    // The keys of Friday, with or without those of Monday.
    for keys in [&["--keys", "friday-keys"][..], &["--keys", "monday-keys", "--keys", "friday-keys"]] {
        let (target, output) = erased.restore(keys).await;
        assert!(output.contains(AGAIN), "{output}");
        erased.assert_erased(&target).await;
    }
    // A list of what was erased stands in for the keys of Friday.
    let unknown = uuid::Uuid::from_u128(7);
    let (note, globex) = (id_of(&erased.paths[3]), GLOBEX.id);
    let list = format!("# since Monday\n{} {note}\n\n{globex}\n{unknown}\n{globex} {unknown}\n", ACME.id);
    fs::write(erased.backups.path("list"), list).unwrap();
    let (target, output) = erased.restore(&["--keys", "monday-keys", "--erased", "list"]).await;
    assert!(output.contains(AGAIN), "{output}");
    // Lines that match nothing are named, and counted as nothing.
    for line in [format!("for {unknown}\n"), format!("for {globex} {unknown}\n")] {
        assert!(output.contains(&line), "{output}");
    }
    erased.assert_erased(&target).await;
    fs::write(erased.backups.path("bad-list"), "the note of yesterday").unwrap();
    let refused =
        erased.backups.restore(&empty_database().await, &["--keys", "monday-keys", "--erased", "bad-list", "monday"]);
    assert_fails(&refused, "a line of --erased");
    // The keys of Monday still decrypt everything. So they are kept for a short time.
    let (target, output) = erased.restore(&["--keys", "monday-keys"]).await;
    assert!(output.contains("erased again: 0 rows"), "{output}");
    let replica = SERVICE.start_on(target, &[]).await;
    assert_eq!(replica.user(roles::ADMIN).get(&erased.paths[3]).await.ok(200)["remark"], "erased remark");
}

/// A rotation gives each row a new key, which does not decrypt an older backup.
#[tokio::test]
async fn crypto_08_restored_backup_from_before_a_rotation_needs_its_own_keys() {
    let erased = Erased::new().await;
    let options = ResealOptions::new(None);
    run_keys(&erased.app, Keys::Rotate { options }, &SHORT_TIMEOUTS).await.unwrap();
    assert_succeeds(&erased.backups.backup_keys(&erased.app.database, "friday-keys"));
    for (keys, message) in [
        (&["--keys", "friday-keys"][..], "rows were re-encrypted after this backup"),
        (&["--keys", "friday-keys", "--keys", "monday-keys"], "monday-keys is older"),
    ] {
        let refused = erased.backups.restore(&empty_database().await, &[keys, &["monday"]].concat());
        assert_fails(&refused, message);
    }
    let (target, output) = erased.restore(&["--keys", "monday-keys", "--keys", "friday-keys"]).await;
    assert!(output.contains(AGAIN), "{output}");
    erased.assert_erased(&target).await;
    // The next rotation, and a new backup, work on the restored database.
    let restored = SERVICE.start_on(target, &SHORT_TIMEOUTS).await;
    run_keys(&restored, Keys::Rotate { options }, &SHORT_TIMEOUTS).await.unwrap();
    assert_notes_readable(&restored, &erased.paths[..3]).await;
    assert_succeeds(&erased.backups.backup(&restored.database.backup, "saturday", "saturday-keys"));
    // Keys from before the data: the newer rows would look erased.
    let older = erased.backups.restore(&empty_database().await, &["--keys", "friday-keys", "saturday"]);
    assert_fails(&older, "friday-keys is older");
}
