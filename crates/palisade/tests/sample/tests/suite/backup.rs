//! Backups (CRYPTO-09): always encrypted for a recipient, complete or absent, and restored exactly.
//! `pg_dump` gets no other secret.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Output, Stdio},
};

use palisade::dev::database::Urls;
use sample::access::roles;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::support::{ACME, SERVICE, empty_database, id, note_body, programs, query, scratch_folder, superuser};

/// A folder for backups, with the key of their recipient.
struct BackupFolder {
    folder: PathBuf,
    programs: PathBuf,
    recipient: String,
}

impl BackupFolder {
    async fn new() -> Self {
        let folder = scratch_folder().join(format!("backup-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&folder).unwrap();
        let backups = Self { folder, programs: programs().await, recipient: String::new() };
        let recipient = backups.add_key("key", 0o400);
        Self { recipient, ..backups }
    }

    /// Writes an age identity as `age-keygen` does; its recipient.
    fn add_key(&self, name: &str, mode: u32) -> String {
        let key = age::x25519::Identity::generate();
        let text =
            format!("# created: today\n# public key: {}\n{}\n", key.to_public(), key.to_string().expose_secret());
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
        key.to_public().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn run(&self, arguments: &[&str], variable: &str, url: &SecretString) -> Output {
        self.run_with(&[], arguments, variable, url)
    }

    /// The same, with this standard input.
    fn run_with(&self, input: &[u8], arguments: &[&str], variable: &str, url: &SecretString) -> Output {
        let mut command = SERVICE.binary();
        command.current_dir(&self.folder).args(arguments).env("APP_PROFILE", "development");
        command.env("APP_PG_BIN", &self.programs).env(variable, url.expose_secret());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The command may exit before it has read all input.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn backup(&self, urls: &Urls, arguments: &[&str]) -> Output {
        self.run(&[&["backup"], arguments].concat(), "APP_DATABASE__BACKUP_URL", &urls.backup)
    }

    fn restore(&self, urls: &Urls, key: &str, file: &str) -> Output {
        self.run(&["restore", "--identity", key, file], "APP_DATABASE__OWNER_URL", &urls.owner)
    }
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

#[track_caller]
fn assert_fails(output: &Output, message: &str) {
    let text = text_of(output);
    assert!(!output.status.success() && text.contains(message), "{text}");
}

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
    let output = backups.backup(&app.database, &["--to", &backups.recipient, "backup.age"]);
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(text_of(&output).contains("data_backed_up"), "{}", text_of(&output));
    let file = fs::read(backups.path("backup.age")).unwrap();
    assert_eq!(fs::metadata(backups.path("backup.age")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(file.starts_with(b"age-encryption.org/v1\n") && file.len() > 10_000);
    for plain in ["PGDMP", "Backed Up", "notes_by_email", "app_writer"] {
        assert!(!file.windows(plain.len()).any(|window| window == plain.as_bytes()), "{plain}");
    }
    assert!(!backups.path("backup.age.partial").exists());
    // Another database with the same keys gets rows, sealed fields, rights and row-level security.
    let target = empty_database().await;
    backups.add_key("other-key", 0o400);
    assert_fails(&backups.restore(&target, "other-key", "backup.age"), "cannot decrypt");
    assert!(is_empty(&target).await);
    let restored = backups.restore(&target, "key", "backup.age");
    assert!(restored.status.success(), "{}", text_of(&restored));
    assert!(text_of(&restored).contains("data_restored"), "{}", text_of(&restored));
    assert!(text_of(&restored).contains("file key"), "the output names the identity: {}", text_of(&restored));
    let again = SERVICE.start_on(target.clone(), &[]).await;
    let path = format!("/v1/notes/{}", id(&created));
    assert_eq!(again.user(roles::ADMIN).get(&path).await.ok(200)["phone"], note["phone"]);
    let rows = "select count(*)::text from notes";
    assert_eq!(query(&target.owner, rows).await, query(&app.database.owner, rows).await);
    let owners = "select distinct c.relowner::regrole::text from pg_class c
                  join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('palisade', 'public')";
    assert_eq!(query(&target.owner, owners).await, ["app_owner"]);
    // Existing files and databases are not overwritten.
    assert_fails(&backups.backup(&app.database, &["--to", &backups.recipient, "backup.age"]), "already exists");
    assert_eq!(fs::read(backups.path("backup.age")).unwrap(), file);
    assert_fails(&backups.restore(&target, "key", "backup.age"), "pg_restore failed");
    assert_eq!(again.user(roles::ADMIN).get(&path).await.ok(200)["phone"], note["phone"]);
}

/// Anyone with the recipient can write another backup, so a restore compares the digest.
#[tokio::test]
async fn crypto_09_restore_verifies_the_digest_of_the_backup() {
    let app = SERVICE.start().await;
    let backups = BackupFolder::new().await;
    let mut digests = Vec::new();
    for name in ["ours", "theirs"] {
        let output = text_of(&backups.backup(&app.database, &["--to", &backups.recipient, name]));
        let digest = palisade::crypto::hex(&palisade::crypto::sha256(&fs::read(backups.path(name)).unwrap()));
        assert_eq!(output.matches(&digest).count(), 2, "in the output and in the event: {output}");
        digests.push(digest);
    }
    let target = empty_database().await;
    let restore = |digest: &str, file: &str| {
        let arguments = ["restore", "--identity", "key", "--sha256", digest, file];
        backups.run(&arguments, "APP_DATABASE__OWNER_URL", &target.owner)
    };
    let other_digest = format!("theirs has another SHA-256: {}", digests[1]);
    for (file, message) in [("theirs", &*other_digest), ("none", "none")] {
        assert_fails(&restore(&digests[0], file), message);
    }
    for wrong in ["ab", &"g".repeat(64)] {
        assert_fails(&restore(wrong, "ours"), "expected 64 hexadecimal");
    }
    assert!(is_empty(&target).await);
    let piped = |digest: &str, file: &str, to: &Urls| {
        let arguments = ["restore", "--identity", "key", "--sha256", digest, "-"];
        backups.run_with(&fs::read(backups.path(file)).unwrap(), &arguments, "APP_DATABASE__OWNER_URL", &to.owner)
    };
    assert_fails(&piped(&digests[0], "theirs", &target), "standard input has another SHA-256");
    assert!(is_empty(&target).await);
    let restored = restore(&digests[0].to_uppercase(), "ours");
    assert!(restored.status.success(), "{}", text_of(&restored));
    // Standard input is read once, so the restored bytes are the verified ones.
    let target = empty_database().await;
    let restored = piped(&digests[0], "ours", &target);
    assert!(restored.status.success() && !is_empty(&target).await, "{}", text_of(&restored));
}

#[tokio::test]
async fn crypto_09_unencrypted_and_incomplete_backups_are_impossible() {
    let app = SERVICE.start().await;
    let backups = BackupFolder::new().await;
    assert_fails(&backups.backup(&app.database, &["plain"]), "--to");
    assert_fails(&backups.backup(&app.database, &["--to", "nobody", "plain"]), "an age recipient");
    // A login without the rights to read all tables, and one with a wrong password.
    let wrong = SecretString::from(app.database.backup.expose_secret().replace("app_backup:", "app_backup:0"));
    for url in [&app.database.reader, &wrong] {
        let arguments = ["backup", "--to", &backups.recipient, "part"];
        assert_fails(&backups.run(&arguments, "APP_DATABASE__BACKUP_URL", url), "pg_dump failed");
    }
    let left: Vec<_> = fs::read_dir(&backups.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["key"]);
    // A backup to standard output.
    let piped = backups.backup(&app.database, &["--to", &backups.recipient, "-"]);
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
    let piped = backups.backup(&app.database, &["--to", &backups.recipient, "-"]);
    assert!(piped.stdout.len() > 300_000, "{}", piped.stdout.len());
    let target = empty_database().await;
    let mut changed = piped.stdout.clone();
    let last = changed.len() - 5;
    changed[last] ^= 1;
    for (name, bytes) in [("changed", changed.as_slice()), ("cut", &piped.stdout[..piped.stdout.len() / 2])] {
        fs::write(backups.path(name), bytes).unwrap();
        let refused = backups.restore(&target, "key", name);
        assert!(!refused.status.success(), "{name}: {}", text_of(&refused));
        assert!(is_empty(&target).await, "{name}");
    }
    // An identity file that all users can read is rejected.
    backups.add_key("open-key", 0o644);
    fs::write(backups.path("whole"), &piped.stdout).unwrap();
    assert_fails(&backups.restore(&target, "open-key", "whole"), "accessible to all users");
}

/// It gets one password and no other variable of the service's environment.
#[tokio::test]
async fn crypto_09_pg_dump_gets_only_its_own_credentials() {
    let backups = BackupFolder { programs: scratch_folder().join("pg-dump-environment"), ..BackupFolder::new().await };
    fs::create_dir_all(&backups.programs).unwrap();
    let program = backups.programs.join("pg_dump");
    fs::write(&program, "#!/bin/sh\nenv > environment\nexit 1\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o500)).unwrap();
    let database = empty_database().await;
    let mut command = SERVICE.binary();
    command.current_dir(&backups.folder).args(["backup", "--to", &backups.recipient, "out"]);
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
