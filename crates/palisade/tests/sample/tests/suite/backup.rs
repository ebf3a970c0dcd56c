//! Backups (CRYPTO-09): always encrypted for a recipient, complete or absent, and restored exactly.
//! `pg_dump` gets no other secret.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use palisade::dev::database::Urls;
use sample::access::roles;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::support::{
    ACME, BackupFolder, SERVICE, assert_fails, assert_succeeds, empty_database, id, note_body, query, scratch_folder,
    superuser, text_of,
};

/// Whether the database has no tables.
async fn is_empty(urls: &Urls) -> bool {
    let tables = "select count(*)::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
                  where c.relkind = 'r' and n.nspname in ('palisade', 'public')";
    let mut connection = superuser(urls).await;
    let count: String = sqlx::query_scalar(tables).fetch_one(&mut connection).await.unwrap();
    count == "0"
}

#[tokio::test]
async fn crypto_09_backup_opens_for_its_recipient_only_and_restores_everything() {
    let app = SERVICE.start().await;
    let mut note = note_body("PAPER-A4", 1);
    note["remark"] = json!("Backed Up");
    note["phone"] = json!("+4917712378945");
    let created = app.user(roles::ADMIN).post("/v1/notes", &note).await.ok(201);
    let backups = BackupFolder::new().await;
    let output = assert_succeeds(&backups.backup(&app.database.backup, "backup.age", "keys.age"));
    assert_eq!(output.matches("data_backed_up").count(), 2, "{output}");
    for (name, size) in [("backup.age", 10_000), ("keys.age", 1_000)] {
        let file = fs::read(backups.path(name)).unwrap();
        assert_eq!(fs::metadata(backups.path(name)).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(file.starts_with(b"age-encryption.org/v1\n") && file.len() > size, "{}", file.len());
        for plain in ["PGDMP", "Backed Up", "notes_by_email", "app_writer", "row_keys"] {
            assert!(!file.windows(plain.len()).any(|window| window == plain.as_bytes()), "{plain}");
        }
    }
    assert_eq!(fs::read_dir(&backups.folder).unwrap().count(), 4, "two keys and two files");
    let file = fs::read(backups.path("backup.age")).unwrap();
    // Another database with the same keys gets rows, sealed fields, rights and row-level security.
    let target = empty_database().await;
    // The recipient of the data cannot decrypt the keys, nor the other way round.
    for key in ["data-key", "keys-key"] {
        let arguments = ["restore", "--identity", key, "--keys", "keys.age", "backup.age"];
        assert_fails(&backups.run(&arguments, "APP_DATABASE__OWNER_URL", &target.owner), "cannot decrypt");
    }
    assert!(is_empty(&target).await);
    let restored = assert_succeeds(&backups.restore(&target, &["--keys", "keys.age", "backup.age"]));
    assert!(restored.contains("data_restored"), "{restored}");
    assert!(restored.contains("erased again: 0 rows, of 7 with sealed fields; keys of 0 tenants"), "{restored}");
    assert!(restored.contains("file keys-key"), "the output names the identity: {restored}");
    let again = SERVICE.start_on(target.clone(), &[]).await;
    let path = format!("/v1/notes/{}", id(&created));
    assert_eq!(again.user(roles::ADMIN).get(&path).await.ok(200)["phone"], note["phone"]);
    let rows = "select count(*)::text from notes";
    assert_eq!(query(&target.owner, rows).await, query(&app.database.owner, rows).await);
    let owners = "select distinct c.relowner::regrole::text from pg_class c
                  join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('palisade', 'public')";
    assert_eq!(query(&target.owner, owners).await, ["app_owner"]);
    // Existing files and databases are not overwritten.
    for (name, keys) in [("backup.age", "new-keys.age"), ("new.age", "keys.age")] {
        assert_fails(&backups.backup(&app.database.backup, name, keys), "already exists");
    }
    assert_eq!(fs::read(backups.path("backup.age")).unwrap(), file);
    assert_eq!(fs::read_dir(&backups.folder).unwrap().count(), 4, "neither file is written");
    assert_fails(&backups.restore(&target, &["--keys", "keys.age", "backup.age"]), "the database is not empty");
    assert_eq!(again.user(roles::ADMIN).get(&path).await.ok(200)["phone"], note["phone"]);
}

/// Anyone with the recipient can write another backup, so a restore compares the digest.
#[tokio::test]
async fn crypto_09_restore_verifies_the_digest_of_the_backup() {
    let app = SERVICE.start().await;
    let backups = BackupFolder::new().await;
    let mut digests = Vec::new();
    for name in ["ours", "theirs"] {
        let keys = format!("{name}-keys");
        let output = assert_succeeds(&backups.backup(&app.database.backup, name, &keys));
        for name in [name, &keys] {
            let digest = palisade::crypto::hex(&palisade::crypto::sha256(&fs::read(backups.path(name)).unwrap()));
            assert_eq!(output.matches(&digest).count(), 2, "in the output and in the event: {output}");
            digests.push(digest);
        }
    }
    let target = empty_database().await;
    let of_keys = digests[1].clone();
    let restore = |digest: &str, keys: &str, file: &str| {
        let arguments = ["--sha256", digest, "--sha256", &of_keys, "--keys", keys, file];
        backups.restore(&target, &arguments)
    };
    let other_digests = [&digests[2], &digests[3]].map(|digest| format!("has another SHA-256: {digest}"));
    for (keys, file, message) in [
        ("ours-keys", "theirs", &*other_digests[0]),
        ("theirs-keys", "ours", &*other_digests[1]),
        ("ours-keys", "none", "none"),
    ] {
        assert_fails(&restore(&digests[0], keys, file), message);
    }
    // An older file of keys does not pass for a newer one, with the digest of each.
    for (given, message) in [
        (&[&digests[0], &digests[1], &digests[3]][..], "ours-keys has another SHA-256"),
        (&[&digests[1], &digests[0], &digests[1]], "ours has another SHA-256"),
        (&[&digests[0], &digests[1]], "give --sha256 once for each file"),
    ] {
        let given = given.iter().flat_map(|digest| ["--sha256", digest.as_str()]);
        let arguments: Vec<_> = given.chain(["--keys", "ours-keys", "--keys", "ours-keys", "ours"]).collect();
        assert_fails(&backups.restore(&target, &arguments), message);
    }
    for wrong in ["ab", &"g".repeat(64)] {
        assert_fails(&restore(wrong, "ours-keys", "ours"), "expected 64 hexadecimal");
    }
    assert!(is_empty(&target).await);
    let piped = |digest: &str, file: &str, to: &Urls| {
        let arguments = ["restore", "--identity", "data-key", "--identity", "keys-key", "--sha256", digest, "--sha256"];
        let arguments = [&arguments[..], &[&of_keys, "--keys", "ours-keys", "-"]].concat();
        backups.run_with(&fs::read(backups.path(file)).unwrap(), &arguments, "APP_DATABASE__OWNER_URL", &to.owner)
    };
    assert_fails(&piped(&digests[0], "theirs", &target), "standard input has another SHA-256");
    assert!(is_empty(&target).await);
    assert_succeeds(&restore(&digests[0].to_uppercase(), "ours-keys", "ours"));
    // Standard input is read once, so the restored bytes are the verified ones.
    let target = empty_database().await;
    let restored = piped(&digests[0], "ours", &target);
    assert!(restored.status.success() && !is_empty(&target).await, "{}", text_of(&restored));
}

#[tokio::test]
async fn crypto_09_unencrypted_and_incomplete_backups_are_impossible() {
    let app = SERVICE.start().await;
    let backups = BackupFolder::new().await;
    let url = &app.database.backup;
    let run = |arguments: &[&str]| backups.run(&[&["backup"], arguments].concat(), "APP_DATABASE__BACKUP_URL", url);
    assert_fails(&run(&["--keys", "plain-keys", "plain"]), "--to");
    assert_fails(&run(&["--to", &backups.recipient, "--keys", "plain-keys", "plain"]), "--keys-to");
    assert_fails(&run(&["--to", "nobody", "--keys", "plain-keys", "plain"]), "an age recipient");
    // A login without the rights to read all tables, and one with a wrong password.
    let wrong = SecretString::from(app.database.backup.expose_secret().replace("app_backup:", "app_backup:0"));
    for (url, message) in [(&app.database.reader, "pg_dump failed"), (&wrong, "cannot connect")] {
        assert_fails(&backups.backup(url, "part", "part-keys"), message);
    }
    assert_fails(&backups.backup(url, "-", "-"), "would get two files");
    assert_eq!(fs::read_dir(&backups.folder).unwrap().count(), 2, "the keys of the recipients");
    // A backup to standard output.
    let piped = backups.backup(url, "-", "first-keys");
    assert!(piped.status.success() && piped.stdout.starts_with(b"age-encryption.org/v1\n"));
    // A backup with a changed byte or a missing end restores nothing; its beginning is valid.
    let many_rows = format!(
        "begin; set local session_replication_role = replica; set local app.tenant_id = '{}';
         insert into notes (tenant_id, id, status, items, priority, remark, created_by, created_at, updated_at)
         select palisade.current_tenant(), gen_random_uuid(), 'draft', '[{{\"code\":\"PEN\",\"count\":1}}]', 'standard',
                concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), 'much', now(), now()
         from generate_series(1, 5000) n;
         commit",
        ACME.id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(many_rows)).execute(&mut superuser(&app.database).await).await.unwrap();
    let piped = backups.backup(url, "-", "keys");
    assert!(piped.stdout.len() > 300_000, "{}", piped.stdout.len());
    let target = empty_database().await;
    let mut changed = piped.stdout.clone();
    let last = changed.len() - 5;
    changed[last] ^= 1;
    for (name, bytes) in [("changed", changed.as_slice()), ("cut", &piped.stdout[..piped.stdout.len() / 2])] {
        fs::write(backups.path(name), bytes).unwrap();
        let refused = backups.restore(&target, &["--keys", "keys", name]);
        assert!(!refused.status.success(), "{name}: {}", text_of(&refused));
        assert!(is_empty(&target).await, "{name}");
    }
    // An identity file that all users can read is rejected.
    backups.add_key("open-key", 0o644);
    fs::write(backups.path("whole"), &piped.stdout).unwrap();
    let arguments = ["--identity", "open-key", "--keys", "keys", "whole"];
    assert_fails(&backups.restore(&target, &arguments), "accessible to all users");
}

/// It gets one password and no other variable of the service's environment.
#[tokio::test]
async fn crypto_09_pg_dump_gets_only_its_own_credentials() {
    let backups = BackupFolder { programs: scratch_folder().join("pg-dump-environment"), ..BackupFolder::new().await };
    fs::create_dir_all(&backups.programs).unwrap();
    let program = backups.programs.join("pg_dump");
    fs::write(&program, "#!/bin/sh\nenv > environment\nexit 1\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o500)).unwrap();
    let database = SERVICE.database().await;
    let mut command = SERVICE.binary();
    command.current_dir(&backups.folder).args(["backup", "--to", &backups.recipient]);
    command.args(["--keys-to", &backups.keys_recipient, "--keys", "out-keys", "out"]);
    command.env("APP_PROFILE", "development").env("APP_PG_BIN", &backups.programs).env("PGHOST", "target");
    command.env("APP_DATABASE__BACKUP_URL", database.backup.expose_secret()).env("APP_SECRETS__PEPPER", "a secret");
    assert!(!command.output().unwrap().status.success());
    let environment = fs::read_to_string(backups.path("environment")).unwrap();
    let names: Vec<&str> = environment.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(names.contains(&"PGPASSWORD"), "{names:?}");
    let others =
        names.iter().filter(|name| name.starts_with("APP_") || name.starts_with("PG") && **name != "PGPASSWORD");
    assert_eq!(others.count(), 0, "{names:?}");
}
