//! What a start refuses, and what it says while it cannot work.

use std::{collections::BTreeMap, fs::Permissions, os::unix::fs::PermissionsExt as _, process::Command};

use service::settings::Settings;

use crate::support::{TestApp, Wire, binary, eventually, test_database};

fn faults(variables: &[(&str, &str)]) -> Vec<String> {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    match Settings::from_variables(variables) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.0.into_iter().map(|fault| format!("{}: {}", fault.variable, fault.message)).collect(),
    }
}

const KEY: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
/// What a production start needs, and no more.
pub const SOUND: [(&str, &str); 10] = [
    ("APP_DATABASE__WRITER_URL", "postgres://app_writer:0123456789abcdef@db.example/app?sslmode=verify-full"),
    ("APP_DATABASE__READER_URL", "postgres://app_reader:fedcba9876543210@db.example/app?sslmode=verify-full"),
    ("APP_DATABASE__AUTHN_URL", "postgres://app_authn:0123456789fedcba@db.example/app?sslmode=verify-full"),
    ("APP_DATABASE__KEYS_URL", "postgres://app_keys:fedcba0123456789@db.example/app?sslmode=verify-full"),
    ("APP_KEYS__MASTER", "1:QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8="),
    ("APP_KEYS__INDEX", "1:YGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8="),
    ("APP_OIDC__ISSUER", "https://login.example.com"),
    ("APP_OIDC__AUDIENCE", "api://orders"),
    ("APP_SECRETS__MAC_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ("APP_SECRETS__PEPPER", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="),
];

#[test]
fn secret_03_a_sound_production_configuration_is_accepted() {
    assert_eq!(faults(&SOUND), Vec::<String>::new());
    // Said or not.
    let with = |profile| faults(&[&SOUND[..], &[("APP_PROFILE", profile)]].concat());
    assert_eq!(with("production"), Vec::<String>::new());
    assert_eq!(with("Production"), ["APP_PROFILE: expected `production` or `development`"]);
}

#[test]
fn secret_03_documents_are_served_in_production_only_if_set() {
    let docs = |more: &[(&str, &str)]| {
        let variables = SOUND.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::from_variables(variables.collect()).unwrap().http.docs
    };
    assert!(!docs(&[]) && docs(&[("APP_HTTP__DOCS", "true")]) && docs(&[("APP_PROFILE", "development")]));
}

/// A service that runs out of descriptors accepts nobody and loses its database.
#[tokio::test]
async fn rate_09_too_few_descriptors_stop_a_production_start() {
    let run = |limit: &str, profile: &str| {
        let mut command = Command::new("sh");
        command.env_clear().envs(SOUND).env("APP_PROFILE", profile).env("APP_HTTP__LISTEN", "127.0.0.1:0");
        command.args(["-c", "ulimit -n $1; exec \"$0\" serve", binary().get_program().to_str().unwrap(), limit]);
        let output = command.output().unwrap();
        assert!(!output.status.success(), "no database answers under that name");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let refused = run("1024", "production");
    assert!(refused.contains("error: the descriptor limit is 1024") && refused.contains("LimitNOFILE"), "{refused}");
    // The soft limit alone is raised.
    let raised = run("-S 256", "production");
    assert!(!raised.contains("descriptor limit"), "{raised}");
    let lowered = run("1024", "development");
    assert!(lowered.contains("fewer connections are accepted"), "{lowered}");
}

#[test]
fn secret_03_every_fault_is_listed_at_once() {
    let found = faults(&[
        ("APP_HTTP__LISTEN", "everywhere"),
        ("APP_HTTP__LISTN", "127.0.0.1:80"),
        ("APP_OIDC__LEEWAY_SECONDS", "600"),
        ("APP_SECRETS__MAC_KEY", "c2hvcnQ="),
    ]);
    for expected in [
        "APP_HTTP__LISTEN: invalid socket address",
        "APP_HTTP__LISTN: no such setting",
        "APP_OIDC__LEEWAY_SECONDS: must be 0 to 30",
        "APP_SECRETS__MAC_KEY: expected 32 random bytes",
        "APP_DATABASE__WRITER_URL: is required",
        "APP_DATABASE__READER_URL: is required",
        "APP_OIDC__ISSUER: is required",
        "APP_OIDC__AUDIENCE: is required",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(expected)), "{expected} is not among {found:#?}");
    }
}

/// What was not read because of another is still a setting, and has its own faults.
#[test]
fn secret_03_one_fault_makes_no_others() {
    for (name, value) in [
        ("APP_KEYS__MASTER", "2:"),
        ("APP_DATABASE__WRITER_URL", ""),
        ("APP_OIDC__ISSUER", ""),
        ("APP_KEYS__INDEX", "1:x"),
    ] {
        let mut all: Vec<(&str, &str)> = SOUND.into_iter().filter(|(known, _)| *known != name).collect();
        all.extend([("APP_EXPORTS__MAX_ROWS", "0"), ("APP_QUOTA__READ_PER_MINUTE", "7"), (name, value)]);
        let mut found = faults(&all);
        found.sort();
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found.iter().any(|fault| fault.starts_with("APP_EXPORTS__MAX_ROWS: must be")), "{found:#?}");
        assert!(found.iter().any(|fault| fault.starts_with(&format!("{name}: "))), "{found:#?}");
    }
}

#[test]
fn secret_03_production_refuses_what_is_unsafe() {
    for (name, value, fault) in [
        ("APP_OIDC__ISSUER", "http://login.example.com", "must be an https URL"),
        ("APP_OIDC__ISSUER", "http://127.0.0.1:8081", "must be an https URL"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:0123456789abcdef@db.example/app", "sslmode=verify-full"),
        (
            "APP_DATABASE__WRITER_URL",
            "postgres://app_writer:0123456789abcdef@db.example/app?sslmode=verify-full&sslmode=disable",
            "each once",
        ),
        (
            "APP_DATABASE__WRITER_URL",
            "postgres://app_writer:0123456789abcdef@127.0.0.1/app?host=db.example",
            "may have the parameters",
        ),
        (
            "APP_DATABASE__WRITER_URL",
            "postgres://app_writer:0123456789abcdef@127.0.0.1/app?user=postgres",
            "may have the parameters",
        ),
        ("APP_DATABASE__WRITER_URL", "postgres://postgres:0123456789abcdef@127.0.0.1/app", "not the superuser's"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:0123456789abcdef@127.0.0.1", "must name the database"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:0123456789abcdef@127.0.0.1/", "must name the database"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:short@127.0.0.1/app", "16 characters"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:Password-0123456@127.0.0.1/app", "a random password"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:my-app_writer-0123@127.0.0.1/app", "a random password"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:abababababababab@127.0.0.1/app", "a random password"),
        (
            "APP_DATABASE__WRITER_URL",
            "postgres://app_writer:fedcba9876543210@127.0.0.1/app",
            "the same secret as in APP_DATABASE__READER_URL",
        ),
        ("APP_SECRETS__PEPPER", SOUND[8].1, "the same secret as in APP_SECRETS__MAC_KEY"),
        (
            "APP_SECRETS__MAC_KEY",
            "YGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8=",
            "the same secret as in APP_KEYS__INDEX",
        ),
        ("APP_DATABASE__READER_URL", SOUND[0].1, "a login of its own"),
        ("APP_DATABASE__AUTHN_URL", SOUND[1].1, "a login of its own"),
        ("APP_DATABASE__KEYS_URL", SOUND[1].1, "a login of its own"),
        ("APP_SECRETS__PEPPER", "c2hvcnQ=", "32 random bytes"),
        ("APP_KEYS__MASTER", "1:c2hvcnQ=", "32 random bytes"),
        ("APP_KEYS__MASTER", "YGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8=", "expected `version:key` parts"),
        ("APP_KEYS__INDEX", "", "is empty"),
        ("APP_REVOCATION__WHEN_LOST", "panic", "expected `refuse` or `serve`"),
        ("APP_DATABASE__READER_URL", "postgres://db.example/app?sslmode=verify-full", "a login of its own"),
        ("APP_HTTP__LISTEN", "0.0.0.0:8080", "loopback"),
        ("APP_SECRETS__MAC_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "32 random bytes"),
    ] {
        let mut variables = SOUND.to_vec();
        variables.retain(|(other, _)| *other != name);
        variables.push((name, value));
        let found = faults(&variables);
        assert!(found.iter().any(|f| f.starts_with(name) && f.contains(fault)), "{name}={value}: {found:#?}");
    }
}

#[test]
fn secret_03_a_further_issuer_says_whose_tokens_it_may_issue() {
    let further = |variables: &[(&'static str, &'static str)]| {
        let mut all = SOUND.to_vec();
        all.extend(variables);
        faults(&all)
    };
    let url = ("APP_OIDC__FURTHER__PARTNER__ISSUER", "https://login.partner.example");
    let tenants = ("APP_OIDC__FURTHER__PARTNER__TENANTS", "0190a000-0000-7000-8000-000000061063");
    assert_eq!(further(&[url, tenants]), Vec::<String>::new());
    for (variables, expected) in [
        (vec![url], "APP_OIDC__FURTHER__PARTNER__TENANTS: is required"),
        (vec![tenants], "APP_OIDC__FURTHER__PARTNER__ISSUER: is required"),
        (
            vec![(url.0, "http://login.partner.example"), tenants],
            "APP_OIDC__FURTHER__PARTNER__ISSUER: must be an https",
        ),
        (vec![(url.0, "https://login.example.com"), tenants], "APP_OIDC__FURTHER: names an issuer twice"),
        (
            vec![url, tenants, ("APP_OIDC__FURTHER__PARTNER__LEEWAY_SECONDS", "9")],
            "APP_OIDC__FURTHER__PARTNER__LEEWAY_SECONDS: no such",
        ),
    ] {
        let found = further(&variables);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{variables:?}: {found:#?}");
    }
}

#[test]
fn secret_03_a_further_issuer_has_a_plain_name() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("further-issuers.toml");
    let (longest, longer) = ("x".repeat(32), "x".repeat(33));
    let sound = ["auth0", "google-oauth2", "samlp", "a_1", &longest];
    let wrong = ["Auth0", "a:b", "a|b", "ä", "a b", "\u{200b}", "", &longer];
    for (names, is_sound) in [(&sound[..], true), (&wrong, false)] {
        for name in names {
            let tenants = "tenants = \"0190a000-0000-7000-8000-000000061063\"";
            let table = format!("[oidc.further.\"{name}\"]\nissuer = \"https://login.partner.example\"\n{tenants}\n");
            std::fs::write(&file, table).unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
            let found = faults(&[&SOUND[..], &[("APP_CONFIG", file.to_str().unwrap())]].concat());
            assert_eq!(found.is_empty(), is_sound, "{name:?}: {found:#?}");
            std::fs::remove_file(&file).unwrap();
        }
    }
    let longer = longer.to_uppercase();
    let named = |leaf: &str| format!("APP_OIDC__FURTHER__{longer}__{leaf}");
    let (issuer, tenants) = (named("ISSUER"), named("TENANTS"));
    let more = [(&*issuer, "https://login.partner.example"), (&*tenants, "0190a000-0000-7000-8000-000000061063")];
    let expected = format!("APP_OIDC__FURTHER__{longer}: the name of a further issuer is 1 to 32");
    let found = faults(&[&SOUND[..], &more].concat());
    assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:#?}");
}

#[test]
fn secret_02_a_fault_quotes_no_secret() {
    let mut variables = SOUND.to_vec();
    variables.push(("APP_DATABASE__WRITER_URL", "postgres://postgres:hunter2hunter2@db.example/app"));
    variables.push(("APP_SECRETS__MAC_KEY", "hunter2"));
    // By mistake it stands where its file should be named.
    variables.push(("APP_QUOTA__REDIS_URL_FILE", "rediss://:hunter2hunter2@cache.example"));
    let found = faults(&variables).join("\n");
    assert!(!found.is_empty() && !found.contains("hunter2"), "{found}");
    let settings = Settings::from_variables(SOUND.map(|(n, v)| (n.to_owned(), v.to_owned())).into()).unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("AAECAw"), "{shown}");
}

#[test]
fn secret_02_a_secret_can_come_from_a_file() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("cursor-key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    let mut variables = SOUND.to_vec();
    variables.retain(|(name, _)| *name != "APP_SECRETS__MAC_KEY");
    variables.push(("APP_SECRETS__MAC_KEY_FILE", file.to_str().unwrap()));
    assert_eq!(faults(&variables), Vec::<String>::new());
    variables.push(("APP_SECRETS__MAC_KEY", KEY));
    assert!(faults(&variables)[0].contains("both directly and by a file"));
    let unreadable = faults(&[("APP_OIDC__ISSUER_FILE", "/no/such/file")]);
    assert!(unreadable.iter().any(|fault| fault.contains("the file cannot be read: No such file")), "{unreadable:#?}");
}

#[tokio::test]
async fn fail_01_without_the_issuers_keys_nobody_is_let_in() {
    let app = TestApp::start_with(&[("APP_OIDC__ISSUER", "http://127.0.0.1:9")]).await;
    let token = app.forge().claim("iss", "http://127.0.0.1:9").token();
    assert_eq!(app.bearer(token).get("/v1/me").await.problem(503), "unavailable");
}

#[tokio::test]
async fn fail_04_readiness_tells_the_truth_and_liveness_depends_on_nothing() {
    let app = TestApp::start_with(&[("APP_OIDC__ISSUER", "http://127.0.0.1:9")]).await;
    let anonymous = app.anonymous();
    assert_eq!(anonymous.get("/health/ready").await.problem(503), "unavailable");
    anonymous.get("/health/live").await.ok(200);
    let database = test_database().await;
    for (variable, login) in
        [("APP_DATABASE__WRITER_URL", &database.writer), ("APP_DATABASE__READER_URL", &database.reader)]
    {
        let wire = Wire::to(login).await;
        let app = TestApp::start_on(database.clone(), &[(variable, wire.url())]).await;
        let probe = app.anonymous();
        wire.down(true);
        eventually("not ready", async || probe.get("/health/ready").await.status == 503).await;
        probe.get("/health/live").await.ok(200);
        wire.down(false);
        eventually("ready again", async || probe.get("/health/ready").await.status == 200).await;
        // One that is there and says nothing is as good as gone.
        wire.silence_for_good();
        eventually("not ready", async || probe.get("/health/ready").await.status == 503).await;
        probe.get("/health/live").await.ok(200);
    }
}
