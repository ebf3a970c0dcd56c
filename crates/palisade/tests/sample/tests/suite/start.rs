//! Startup of the service: settings that it rejects (SECRET-02, SECRET-03), limits of the machine
//! (RATE-09), and its state while a dependency is missing (FAIL-01, FAIL-04).

use std::{collections::BTreeMap, fs::Permissions, os::unix::fs::PermissionsExt as _, process::Command};

use palisade::{app::BackgroundEnded, model::Clock};
use tokio::sync::watch;

use crate::support::{PRODUCTION_SETTINGS, PgProxy, SERVICE, TestApp, eventually, start_issuer};

fn faults(variables: &[(&str, &str)]) -> Vec<String> {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    match sample::app().read_settings(variables) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.0.into_iter().map(|fault| format!("{}: {}", fault.variable, fault.message)).collect(),
    }
}

/// A MAC key that no other setting has.
const KEY: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

#[test]
fn secret_03_minimal_production_settings_are_accepted() {
    assert_eq!(faults(&PRODUCTION_SETTINGS), Vec::<String>::new());
    // `production` is the default, and may be set.
    let with = |profile| faults(&[&PRODUCTION_SETTINGS[..], &[("APP_PROFILE", profile)]].concat());
    assert_eq!(with("production"), Vec::<String>::new());
    assert_eq!(with("Production"), ["APP_PROFILE: expected `production` or `development`"]);
}

#[test]
fn secret_03_production_serves_documentation_only_if_enabled() {
    let docs = |more: &[(&str, &str)]| {
        let variables =
            PRODUCTION_SETTINGS.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        sample::app().read_settings(variables.collect()).unwrap().http.docs
    };
    assert!(!docs(&[]) && docs(&[("APP_HTTP__DOCS", "true")]) && docs(&[("APP_PROFILE", "development")]));
}

/// A service that runs out of file descriptors accepts no connection and loses its database.
#[tokio::test]
async fn rate_09_low_descriptor_limit_prevents_startup_in_production() {
    let run = |limit: &str, profile: &str| {
        let mut command = Command::new("sh");
        command
            .env_clear()
            .envs(PRODUCTION_SETTINGS)
            .env("APP_PROFILE", profile)
            .env("APP_HTTP__LISTEN", "127.0.0.1:0");
        command.args([
            "-c",
            "ulimit -n $1; exec \"$0\" serve",
            SERVICE.binary().get_program().to_str().unwrap(),
            limit,
        ]);
        let output = command.output().unwrap();
        assert!(!output.status.success(), "startup succeeded without a database");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let refused = run("1024", "production");
    assert!(refused.contains("file descriptor limit is 1024") && refused.contains("LimitNOFILE"), "{refused}");
    // The service raises the soft limit to the hard limit.
    let raised = run("-S 256", "production");
    assert!(!raised.contains("descriptor limit"), "{raised}");
    let lowered = run("1024", "development");
    assert!(lowered.contains("connection limit reduced"), "{lowered}");
}

#[test]
fn secret_03_start_lists_all_faults_at_once() {
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

/// A fault in one setting neither hides the faults of others nor makes them unknown settings.
#[test]
fn secret_03_one_fault_causes_no_further_faults() {
    for (name, value) in [
        ("APP_KEYS__MASTER", "2:"),
        ("APP_DATABASE__WRITER_URL", ""),
        ("APP_OIDC__ISSUER", ""),
        ("APP_KEYS__INDEX", "1:x"),
    ] {
        let mut all: Vec<(&str, &str)> = PRODUCTION_SETTINGS.into_iter().filter(|(other, _)| *other != name).collect();
        all.extend([("APP_EXPORTS__MAX_ROWS", "0"), ("APP_QUOTA__READ_PER_MINUTE", "7"), (name, value)]);
        let mut found = faults(&all);
        found.sort();
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found.iter().any(|fault| fault.starts_with("APP_EXPORTS__MAX_ROWS: must be")), "{found:#?}");
        assert!(found.iter().any(|fault| fault.starts_with(&format!("{name}: "))), "{found:#?}");
    }
}

#[test]
fn secret_03_production_rejects_unsafe_settings() {
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
        ("APP_DATABASE__WRITER_URL", "postgres://postgres:0123456789abcdef@127.0.0.1/app", "not the superuser"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:0123456789abcdef@127.0.0.1", "must name the database"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:0123456789abcdef@127.0.0.1/", "must name the database"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:short@127.0.0.1/app", "16 characters"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:Password-0123456@127.0.0.1/app", "a random password"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:my-app_writer-0123@127.0.0.1/app", "a random password"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:Changeme-20261125@127.0.0.1/app", "a random password"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:my-APP_WRITER-0123@127.0.0.1/app", "a random password"),
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:abcdeabcdeabcdeabcde@127.0.0.1/app", "a random password"),
        (
            "APP_DATABASE__WRITER_URL",
            "postgres://app_writer:fedcba9876543210@127.0.0.1/app",
            "the same secret as in APP_DATABASE__READER_URL",
        ),
        ("APP_SECRETS__PEPPER", PRODUCTION_SETTINGS[8].1, "the same secret as in APP_SECRETS__MAC_KEY"),
        (
            "APP_SECRETS__MAC_KEY",
            "YGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8=",
            "the same secret as in APP_KEYS__INDEX",
        ),
        ("APP_DATABASE__READER_URL", PRODUCTION_SETTINGS[0].1, "its own role"),
        ("APP_DATABASE__AUTHN_URL", PRODUCTION_SETTINGS[1].1, "its own role"),
        ("APP_DATABASE__KEYS_URL", PRODUCTION_SETTINGS[1].1, "its own role"),
        ("APP_SECRETS__PEPPER", "c2hvcnQ=", "32 random bytes"),
        ("APP_KEYS__MASTER", "1:c2hvcnQ=", "32 random bytes"),
        ("APP_KEYS__MASTER", "YGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8=", "expected `version:key` parts"),
        ("APP_KEYS__INDEX", "", "is empty"),
        ("APP_REVOCATION__ON_STALE_FEED", "panic", "expected `refuse` or `serve`"),
        ("APP_DATABASE__READER_URL", "postgres://db.example/app?sslmode=verify-full", "not the superuser"),
        ("APP_HTTP__LISTEN", "0.0.0.0:8080", "loopback"),
        ("APP_SECRETS__MAC_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "32 random bytes"),
        ("APP_SECRETS__MAC_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g", "32 random bytes"),
        ("APP_SECRETS__MAC_KEY", "!!", "32 random bytes"),
    ] {
        let mut variables = PRODUCTION_SETTINGS.to_vec();
        variables.retain(|(other, _)| *other != name);
        variables.push((name, value));
        let found = faults(&variables);
        assert!(found.iter().any(|f| f.starts_with(name) && f.contains(fault)), "{name}={value}: {found:#?}");
    }
}

#[test]
fn secret_03_further_issuer_needs_a_list_of_tenants() {
    let further = |variables: &[(&'static str, &'static str)]| {
        let mut all = PRODUCTION_SETTINGS.to_vec();
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
        (
            vec![url, tenants, ("APP_OIDC__FURTHER__PARTNER__EU__ISSUER", "https://eu.partner.example")],
            "APP_OIDC__FURTHER__PARTNER__EU__ISSUER: no such",
        ),
    ] {
        let found = further(&variables);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{variables:?}: {found:#?}");
    }
}

#[test]
fn secret_03_further_issuer_name_is_validated() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("further-issuers.toml");
    let longest = "x".repeat(32);
    let too_long = "x".repeat(33);
    let valid = ["auth0", "google-oauth2", "samlp", "a_1", &longest];
    let invalid = ["Auth0", "a:b", "a|b", "ä", "a b", "\u{200b}", "", &too_long];
    for (names, is_valid) in [(&valid[..], true), (&invalid, false)] {
        for name in names {
            let tenants = "tenants = \"0190a000-0000-7000-8000-000000061063\"";
            let table = format!("[oidc.further.\"{name}\"]\nissuer = \"https://login.partner.example\"\n{tenants}\n");
            std::fs::write(&file, table).unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
            let found = faults(&[&PRODUCTION_SETTINGS[..], &[("APP_CONFIG", file.to_str().unwrap())]].concat());
            assert_eq!(found.is_empty(), is_valid, "{name:?}: {found:#?}");
            std::fs::remove_file(&file).unwrap();
        }
    }
    let too_long = too_long.to_uppercase();
    let issuer = format!("APP_OIDC__FURTHER__{too_long}__ISSUER");
    let tenants = format!("APP_OIDC__FURTHER__{too_long}__TENANTS");
    let more = [(&*issuer, "https://login.partner.example"), (&*tenants, "0190a000-0000-7000-8000-000000061063")];
    let expected = format!("APP_OIDC__FURTHER__{too_long}: the name of a further issuer is 1 to 32");
    let found = faults(&[&PRODUCTION_SETTINGS[..], &more].concat());
    assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:#?}");
}

#[test]
fn secret_02_faults_quote_no_secret() {
    let mut variables = PRODUCTION_SETTINGS.to_vec();
    variables.push(("APP_DATABASE__WRITER_URL", "postgres://postgres:hunter2hunter2@db.example/app"));
    variables.push(("APP_SECRETS__MAC_KEY", "hunter2"));
    // By mistake the secret is where the path of its file belongs.
    variables.push(("APP_QUOTA__REDIS_URL_FILE", "rediss://:hunter2hunter2@cache.example"));
    let found = faults(&variables).join("\n");
    assert!(!found.is_empty() && !found.contains("hunter2"), "{found}");
    let settings =
        sample::app().read_settings(PRODUCTION_SETTINGS.map(|(n, v)| (n.to_owned(), v.to_owned())).into()).unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("AAECAw"), "{shown}");
}

#[test]
fn secret_02_secrets_can_come_from_files() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("cursor-key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    let mut variables = PRODUCTION_SETTINGS.to_vec();
    variables.retain(|(name, _)| *name != "APP_SECRETS__MAC_KEY");
    variables.push(("APP_SECRETS__MAC_KEY_FILE", file.to_str().unwrap()));
    assert_eq!(faults(&variables), Vec::<String>::new());
    variables.push(("APP_SECRETS__MAC_KEY", KEY));
    assert!(faults(&variables)[0].contains("both directly and by a file"));
    let unreadable = faults(&[("APP_OIDC__ISSUER_FILE", "/no/such/file")]);
    assert!(unreadable.iter().any(|fault| fault.contains("the file cannot be read: No such file")), "{unreadable:#?}");
}

#[tokio::test]
async fn fail_01_tokens_get_503_while_issuer_keys_are_missing() {
    let app = SERVICE.start_with(&[("APP_OIDC__ISSUER", "http://127.0.0.1:9")]).await;
    let token = app.forge().claim("iss", "http://127.0.0.1:9").token();
    assert_eq!(app.bearer(token).get("/v1/me").await.problem(503), "unavailable");
}

#[tokio::test]
async fn fail_04_readiness_reports_dependencies_and_liveness_does_not() {
    let app = SERVICE.start_with(&[("APP_OIDC__ISSUER", "http://127.0.0.1:9")]).await;
    let anonymous = app.anonymous();
    assert_eq!(anonymous.get("/health/ready").await.problem(503), "unavailable");
    anonymous.get("/health/live").await.ok(200);
    let database = SERVICE.database().await;
    for (variable, login) in
        [("APP_DATABASE__WRITER_URL", &database.writer), ("APP_DATABASE__READER_URL", &database.reader)]
    {
        let proxy = PgProxy::start(login).await;
        let app = SERVICE.start_on(database.clone(), &[(variable, proxy.url())]).await;
        let probe = app.anonymous();
        proxy.set_down(true);
        eventually("not ready", async || probe.get("/health/ready").await.status == 503).await;
        probe.get("/health/live").await.ok(200);
        proxy.set_down(false);
        eventually("ready again", async || probe.get("/health/ready").await.status == 200).await;
        // A database that accepts connections but does not respond counts as down.
        proxy.silence_all();
        eventually("not ready", async || probe.get("/health/ready").await.status == 503).await;
        probe.get("/health/live").await.ok(200);
    }
}

#[tokio::test]
async fn fail_03_end_of_a_background_task_of_the_service_stops_it() {
    let issuer = start_issuer(Clock::system()).await;
    let (end, ended) = watch::channel(false);
    let app = sample::app().task(move |context, limits| {
        assert!(context.docs && limits.max_express > 0);
        let mut ended = ended.clone();
        async move { drop(ended.wait_for(|ended| *ended).await) }
    });
    let settings = app.read_settings(TestApp::variables(&SERVICE.database().await, issuer.url())).unwrap();
    let running = palisade::app::start(&app, settings, Clock::system()).await.unwrap();
    let running = tokio::spawn(running.run(std::future::pending()));
    assert!(!running.is_finished());
    end.send_replace(true);
    assert_eq!(running.await.unwrap(), Err(BackgroundEnded));
}
