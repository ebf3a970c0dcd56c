//! Backups (CRYPTO-09): nobody reads one who has no key for it, and what is restored is what was there.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use service::{authz::policy::Role, dev::database::Urls};

use crate::support::{ACME, TestApp, binary, empty_database, programs, query, superuser};

/// A place for files, and somebody who can read backups.
struct Place {
    folder: PathBuf,
    programs: PathBuf,
    recipient: String,
}

impl Place {
    async fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("backup-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&folder).unwrap();
        let place = Self { folder, programs: programs().await, recipient: String::new() };
        let recipient = place.add_key("key", 0o400);
        Self { recipient, ..place }
    }

    /// Writes a key as `age-keygen` does, and gives its public half.
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

    /// The same with this as standard input, which nobody can read twice.
    fn run_with(&self, input: &[u8], arguments: &[&str], variable: &str, url: &SecretString) -> Output {
        let mut command = binary();
        command.current_dir(&self.folder).args(arguments).env("APP_PROFILE", "development");
        command.env("APP_PG_BIN", &self.programs).env(variable, url.expose_secret());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may end before it has read all of it.
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

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

/// Whether nothing is there.
async fn is_empty(urls: &Urls) -> bool {
    let tables = "select count(*)::text from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'";
    let mut connection = superuser(urls).await;
    let count: String = sqlx::query_scalar(tables).fetch_one(&mut connection).await.unwrap();
    count == "0"
}

#[tokio::test]
async fn crypto_09_a_backup_is_read_by_whom_it_is_for_alone_and_restores_everything() {
    let app = TestApp::start().await;
    let person = json!({ "name": "Backed Up", "email": "backed-up@example.com", "phone": "+4917712378945" });
    let created = app.user(Role::Admin).post("/v1/customers", &person).await.ok(201);
    let place = Place::new().await;
    let done = place.backup(&app.database, &["--to", &place.recipient, "backup.age"]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("data_backed_up"), "{}", said(&done));
    let file = fs::read(place.path("backup.age")).unwrap();
    assert_eq!(fs::metadata(place.path("backup.age")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(file.starts_with(b"age-encryption.org/v1\n") && file.len() > 10_000);
    for plain in ["PGDMP", "Backed Up", "customers", "app_writer"] {
        assert!(!file.windows(plain.len()).any(|window| window == plain.as_bytes()), "{plain}");
    }
    assert!(!place.path("backup.age.partial").exists());
    // Elsewhere, with the same keys, everything is there: rows, sealed fields, rights and row-level security.
    let elsewhere = empty_database().await;
    place.add_key("other-key", 0o400);
    let refused = place.restore(&elsewhere, "other-key", "backup.age");
    assert!(!refused.status.success() && said(&refused).contains("cannot decrypt"), "{}", said(&refused));
    assert!(is_empty(&elsewhere).await);
    let restored = place.restore(&elsewhere, "key", "backup.age");
    assert!(restored.status.success(), "{}", said(&restored));
    assert!(said(&restored).contains("data_restored"), "{}", said(&restored));
    assert!(said(&restored).contains("file key"), "whose key it was is told: {}", said(&restored));
    let again = TestApp::start_on(elsewhere.clone(), &[]).await;
    let path = format!("/v1/customers/{}", created["id"].as_str().unwrap());
    assert_eq!(again.user(Role::Admin).get(&path).await.ok(200)["phone"], person["phone"]);
    let rows = "select count(*)::text from orders";
    assert_eq!(query(&elsewhere.owner, rows).await, query(&app.database.owner, rows).await);
    let owners = "select distinct relowner::regrole::text from pg_class where relnamespace = 'public'::regnamespace";
    assert_eq!(query(&elsewhere.owner, owners).await, ["app_owner"]);
    // What is there is not overwritten, neither a file nor a database.
    let done = place.backup(&app.database, &["--to", &place.recipient, "backup.age"]);
    assert!(!done.status.success() && said(&done).contains("is there already"), "{}", said(&done));
    assert_eq!(fs::read(place.path("backup.age")).unwrap(), file);
    let twice = place.restore(&elsewhere, "key", "backup.age");
    assert!(!twice.status.success() && said(&twice).contains("pg_restore failed"), "{}", said(&twice));
    assert_eq!(again.user(Role::Admin).get(&path).await.ok(200)["phone"], person["phone"]);
}

/// Whoever has the recipient can write a backup of something else.
#[tokio::test]
async fn crypto_09_a_backup_is_told_from_another_by_its_digest() {
    let app = TestApp::start().await;
    let place = Place::new().await;
    let mut digests = Vec::new();
    for name in ["ours", "theirs"] {
        let done = said(&place.backup(&app.database, &["--to", &place.recipient, name]));
        let digest = service::crypto::hex(&service::crypto::sha256(&fs::read(place.path(name)).unwrap()));
        assert_eq!(done.matches(&digest).count(), 2, "told, and in the event: {done}");
        digests.push(digest);
    }
    let elsewhere = empty_database().await;
    let restore = |digest: &str, file: &str| {
        let arguments = ["restore", "--identity", "key", "--sha256", digest, file];
        place.run(&arguments, "APP_DATABASE__OWNER_URL", &elsewhere.owner)
    };
    for (file, says) in
        [("theirs", format!("is another backup: its SHA-256 is {}", digests[1])), ("none", "none".to_owned())]
    {
        let refused = restore(&digests[0], file);
        assert!(!refused.status.success() && said(&refused).contains(&says), "{}", said(&refused));
    }
    for wrong in ["ab", &"g".repeat(64)] {
        let refused = restore(wrong, "ours");
        assert!(!refused.status.success() && said(&refused).contains("expected 64 hexadecimal"), "{}", said(&refused));
    }
    assert!(is_empty(&elsewhere).await);
    let piped = |digest: &str, file: &str, to: &Urls| {
        let arguments = ["restore", "--identity", "key", "--sha256", digest, "-"];
        place.run_with(&fs::read(place.path(file)).unwrap(), &arguments, "APP_DATABASE__OWNER_URL", &to.owner)
    };
    let refused = piped(&digests[0], "theirs", &elsewhere);
    assert!(!refused.status.success() && said(&refused).contains("input is another backup"), "{}", said(&refused));
    assert!(is_empty(&elsewhere).await);
    let restored = restore(&digests[0].to_uppercase(), "ours");
    assert!(restored.status.success(), "{}", said(&restored));
    // It is read once: what is restored is what was digested, whoever changes it meanwhile.
    let elsewhere = empty_database().await;
    let restored = piped(&digests[0], "ours", &elsewhere);
    assert!(restored.status.success() && !is_empty(&elsewhere).await, "{}", said(&restored));
}

#[tokio::test]
async fn crypto_09_there_is_no_plain_backup_and_no_part_of_one() {
    let app = TestApp::start().await;
    let place = Place::new().await;
    let plain = place.backup(&app.database, &["plain"]);
    assert!(!plain.status.success() && said(&plain).contains("--to"), "{}", said(&plain));
    let nobody = place.backup(&app.database, &["--to", "nobody", "plain"]);
    assert!(!nobody.status.success() && said(&nobody).contains("recipient of age"), "{}", said(&nobody));
    // A login that may not read everything, and one that cannot connect.
    let wrong = SecretString::from(app.database.backup.expose_secret().replace("app_backup:", "app_backup:0"));
    for url in [&app.database.reader, &wrong] {
        let arguments = ["backup", "--to", &place.recipient, "part"];
        let failed = place.run(&arguments, "APP_DATABASE__BACKUP_URL", url);
        assert!(!failed.status.success() && said(&failed).contains("pg_dump failed"), "{}", said(&failed));
    }
    let left: Vec<_> = fs::read_dir(&place.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["key"]);
    // To standard output, for another program to keep.
    let piped = place.backup(&app.database, &["--to", &place.recipient, "-"]);
    assert!(piped.status.success() && piped.stdout.starts_with(b"age-encryption.org/v1\n"));
    // A changed byte, or a missing end: nothing of it is restored, though the beginning of it is in order and has tables.
    let much = format!(
        "begin; set local session_replication_role = replica; set local app.tenant_id = '{}';
         insert into orders (tenant_id, id, status, shipping_speed, note, total_amount, total_currency, created_by,
                             created_at, updated_at)
         select current_tenant(), gen_random_uuid(), 'placed', 'standard',
                concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), 549, 'EUR', 'much', now(), now()
         from generate_series(1, 5000) n;
         commit",
        ACME.id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(much)).execute(&mut superuser(&app.database).await).await.unwrap();
    let piped = place.backup(&app.database, &["--to", &place.recipient, "-"]);
    assert!(piped.stdout.len() > 300_000, "{}", piped.stdout.len());
    let elsewhere = empty_database().await;
    let mut changed = piped.stdout.clone();
    let last = changed.len() - 5;
    changed[last] ^= 1;
    for (name, bytes) in [("changed", changed.as_slice()), ("cut", &piped.stdout[..piped.stdout.len() / 2])] {
        fs::write(place.path(name), bytes).unwrap();
        let refused = place.restore(&elsewhere, "key", name);
        assert!(!refused.status.success(), "{name}: {}", said(&refused));
        assert!(is_empty(&elsewhere).await, "{name}");
    }
    // Nor with a key that everybody can read.
    place.add_key("open-key", 0o644);
    fs::write(place.path("whole"), &piped.stdout).unwrap();
    let refused = place.restore(&elsewhere, "open-key", "whole");
    assert!(!refused.status.success() && said(&refused).contains("open to everybody"), "{}", said(&refused));
}

/// It gets the one password that it needs, and nothing that this service's environment says.
#[tokio::test]
async fn crypto_09_who_dumps_the_database_is_told_no_other_secret() {
    let place = Place { programs: Path::new(env!("CARGO_TARGET_TMPDIR")).join("told"), ..Place::new().await };
    fs::create_dir_all(&place.programs).unwrap();
    let program = place.programs.join("pg_dump");
    fs::write(&program, "#!/bin/sh\nenv > told\nexit 1\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o500)).unwrap();
    let database = empty_database().await;
    let mut command = binary();
    command.current_dir(&place.folder).args(["backup", "--to", &place.recipient, "out"]);
    command.env("APP_PROFILE", "development").env("APP_PG_BIN", &place.programs).env("PGHOST", "elsewhere");
    command.env("APP_DATABASE__BACKUP_URL", database.backup.expose_secret()).env("APP_SECRETS__PEPPER", "a secret");
    assert!(!command.output().unwrap().status.success());
    let told = fs::read_to_string(place.path("told")).unwrap();
    let names: Vec<&str> = told.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(names.contains(&"PGPASSWORD"), "{names:?}");
    let others =
        names.iter().filter(|name| name.starts_with("APP_") || name.starts_with("PG") && **name != "PGPASSWORD");
    assert_eq!(others.count(), 0, "{names:?}");
}
