//! Settings: bounds and words of each row of the table, and rules that involve several settings.

mod risks;

use std::collections::BTreeMap;

use palisade::settings::{Bounds, OnStaleFeed, Profile, Row};

use crate::support::PRODUCTION_SETTINGS;

/// Settings that others need to have an effect.
const CONTEXT: [(&str, &str); 17] = [
    ("QUOTA__REDIS_URL", "rediss://:Zk3v9QwXb7Lm2RtY@redis.example"),
    ("KEYS__VAULT__URL", "https://vault.example"),
    ("KEYS__VAULT__TOKEN", "89abcdef01234567"),
    ("KEYS__PROVIDER", "keyset"),
    ("KEYS__VAULT__TIMEOUT_MS", "49"),
    ("HTTP__REQUEST_TIMEOUT_MS", "60000"),
    ("OTLP__ENDPOINT", "https://collector.example"),
    ("OIDC__FURTHER__PARTNER__ISSUER", "https://partner.example"),
    ("OIDC__FURTHER__PARTNER__TENANTS", "0190a000-0000-7000-8000-0000000000aa"),
    ("OIDC__MAX_STALENESS_SECONDS", "86400"),
    ("INTERNAL__SERVICES__PARTNER__CERTIFICATE_NAME", "spiffe://acme.example/job"),
    ("INTERNAL__SERVICES__PARTNER__RIGHTS", "incidents"),
    ("INTERNAL__LISTEN", "127.0.0.1:0"),
    ("INTERNAL__CERTIFICATE_PATH", "certificate.pem"),
    ("INTERNAL__KEY_PATH", "key.pem"),
    ("INTERNAL__CLIENT_CA_PATH", "ca.pem"),
    ("DATABASE__INCIDENTS_URL", "postgres://app_incidents:short@localhost/app"),
];

/// The variables of a valid production configuration.
fn valid() -> BTreeMap<String, String> {
    BTreeMap::from(PRODUCTION_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

/// Faults of one setting that is added to `CONTEXT` in the development profile.
fn faults_with(variable: &str, value: &str) -> Vec<String> {
    let mut variables = valid();
    variables.insert("APP_PROFILE".to_owned(), "development".to_owned());
    variables.extend(CONTEXT.map(|(name, value)| (format!("APP_{name}"), value.to_owned())));
    variables.insert(variable.to_owned(), value.to_owned());
    let faults = sample::app().read_settings(variables).err().map(|faults| faults.0).unwrap_or_default();
    faults.into_iter().filter(|fault| fault.variable == variable).map(|fault| fault.message).collect()
}

/// Every variable of the table with its row.
fn table() -> impl Iterator<Item = (String, &'static Row)> {
    let rows = sample::app().sections().all().flat_map(|section| section.rows);
    rows.flat_map(|row| row.variables().into_iter().map(move |name| (name.replace("<NAME>", "PARTNER"), row)))
}

#[test]
fn secret_03_numbers_are_accepted_within_their_bounds_only() {
    for (variable, row) in table() {
        let Some(Bounds { min, max, .. }) = row.bounds else { continue };
        for accepted in [min, max] {
            assert_eq!(faults_with(&variable, accepted), [""; 0], "{variable}={accepted}");
        }
        let [least, greatest] = [min, max].map(|bound| bound.parse::<f64>().unwrap());
        let step = if least.fract() == 0.0 { 1.0 } else { least / 2.0 };
        for rejected in [(least - step).to_string(), (greatest + step).to_string(), "many".to_owned()] {
            let faults = faults_with(&variable, &rejected);
            let [fault] = faults.as_slice() else { panic!("{variable}={rejected}: {faults:?}") };
            assert!(fault.starts_with(&format!("must be {min} to {max}")), "{variable}={rejected}: {fault}");
        }
    }
}

#[test]
fn secret_03_words_are_accepted_exactly_as_listed() {
    for (variable, row) in table().filter(|(_, row)| !row.shape.words.is_empty()) {
        for word in row.shape.words {
            assert_eq!(faults_with(&variable, word), [""; 0], "{variable}={word}");
        }
        for rejected in ["other", &format!("{}x", row.shape.words[0])] {
            assert_eq!(faults_with(&variable, rejected).len(), 1, "{variable}={rejected}");
        }
    }
}

/// A row that no code reads would be accepted with any value.
#[test]
fn secret_03_every_setting_is_read() {
    let commands = ["APP_DATABASE__OWNER_URL", "APP_DATABASE__OPERATOR_URL", "APP_DATABASE__BACKUP_URL"];
    for (variable, _) in table().filter(|(variable, _)| !commands.contains(&variable.as_str())) {
        assert_eq!(faults_with(&variable, " "), ["is empty"], "{variable}");
    }
}

#[test]
fn secret_03_defaults_are_safe() {
    let settings = sample::app().read_settings(valid()).unwrap();
    assert_eq!(settings.profile, Profile::Production);
    assert_eq!(settings.revocation.on_stale_feed, OnStaleFeed::Refuse);
    assert_eq!(settings.oidc.first.token_types, ["at+jwt"]);
    assert_eq!(settings.oidc.first.max_token_lifetime, 900);
    assert!(settings.http.listen.ip().is_loopback());
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(settings.api_keys.concurrent_hashes, (processors / 2).max(1));
}

/// Settings added to a valid configuration, and the setting and message of the only fault, if any.
type Case<'a> = (&'a [(&'a str, &'a str)], Option<(&'a str, &'a str)>);

fn assert_each(cases: &[Case<'_>]) {
    for (given, expected) in cases {
        let mut variables = valid();
        variables.extend(given.iter().map(|(name, value)| (format!("APP_{name}"), (*value).to_owned())));
        let faults = sample::app().read_settings(variables).err().map(|faults| faults.0).unwrap_or_default();
        match (faults.as_slice(), expected) {
            ([], None) => {}
            ([fault], Some((name, says))) => {
                assert_eq!(fault.variable, format!("APP_{name}"), "{given:?}");
                assert!(fault.message.contains(says), "{given:?}: {}", fault.message);
            }
            _ => panic!("{given:?} should have {expected:?}, and has {faults:#?}"),
        }
    }
}

const DEVELOPMENT: (&str, &str) = ("PROFILE", "development");

#[test]
fn secret_03_missing_setting_hides_no_other_fault() {
    let mut variables = valid();
    variables.remove("APP_SECRETS__PEPPER");
    for (name, value) in [
        ("APP_DATABASE__WRITER_URL", "postgres://app_writer:short@localhost/app"),
        ("APP_OIDC__ISSUER", "http://login.example.com"),
        ("APP_QUOTA__REDIS_URL", "redis://cache.example"),
    ] {
        variables.insert(name.to_owned(), value.to_owned());
    }
    variables
        .insert("APP_SECRETS__MAC_KEY".to_owned(), variables["APP_KEYS__INDEX"].split_once(':').unwrap().1.to_owned());
    let faults = sample::app().read_settings(variables).unwrap_err().0;
    let of: std::collections::BTreeSet<&str> = faults.iter().map(|fault| fault.variable.as_str()).collect();
    let expected = [
        "APP_DATABASE__WRITER_URL",
        "APP_KEYS__INDEX",
        "APP_OIDC__ISSUER",
        "APP_QUOTA__REDIS_URL",
        "APP_SECRETS__MAC_KEY",
        "APP_SECRETS__PEPPER",
    ];
    assert_eq!(of.into_iter().collect::<Vec<_>>(), expected, "{faults:#?}");
}

#[test]
fn secret_03_passwords_are_decoded_before_they_are_checked() {
    let (writer, redis) = ("DATABASE__WRITER_URL", "QUOTA__REDIS_URL");
    let url = |password: &str| format!("postgres://app_writer:{password}@localhost/app");
    let short = url("%21%40%23%24%25%5E");
    let word = url("%63hangeme-7f3a9cQx");
    let sound = url("%21v7Qm2xK9-tR4w_Zp");
    let cache = |password: &str| format!("rediss://:{password}@cache.example");
    let (common, good) = (cache("changeme-20261125"), cache("Zk3v9QwXb7Lm2RtY"));
    assert_each(&[
        (&[(writer, &short)], Some((writer, "16 characters or more"))),
        (&[(writer, &word)], Some((writer, "a random password"))),
        (&[(writer, &sound)], None),
        (&[(redis, &common)], Some((redis, "a random password"))),
        (&[(redis, &good)], None),
    ]);
}

#[test]
fn secret_03_production_limits_failed_authentications() {
    let failures = "FAILURE_LIMIT__MAX_FAILURES";
    assert_each(&[
        (&[(failures, "1000")], None),
        (&[(failures, "1001")], Some((failures, "must be 1 to 1000 in production"))),
    ]);
}

#[test]
fn secret_03_issuer_keys_are_refreshed_twice_before_they_expire() {
    let (refresh, staleness) = ("OIDC__REFRESH_SECONDS", "OIDC__MAX_STALENESS_SECONDS");
    let fault = Some((refresh, "must be at most half of max_staleness_seconds"));
    assert_each(&[
        (&[(refresh, "300"), (staleness, "600")], None),
        (&[(refresh, "301"), (staleness, "601")], fault),
        (&[(refresh, "1801")], fault),
        // The default is half the staleness.
        (&[(staleness, "60")], None),
    ]);
}

#[test]
fn secret_03_issuer_requires_https_without_query_or_fragment() {
    let url = "OIDC__ISSUER";
    let (https, rest) =
        (Some((url, "must be an https URL")), Some((url, "must have no user, no query and no fragment")));
    assert_each(&[
        (&[(url, "https://login.example.com/?a=b")], rest),
        (&[(url, "https://login.example.com/#b")], rest),
        (&[(url, "http://127.0.0.1:8081")], https),
        (&[DEVELOPMENT, (url, "http://login.example.com")], https),
        (&[DEVELOPMENT, (url, "ftp://127.0.0.1")], https),
        (&[DEVELOPMENT, (url, "http://localhost:8081")], None),
        (&[DEVELOPMENT, (url, "http://[::1]:8081")], None),
        (&[(url, "login.example.com")], Some((url, "is not a URL"))),
    ]);
}

#[test]
fn secret_03_remote_database_requires_verify_full() {
    let url = "DATABASE__WRITER_URL";
    let tls = Some((url, "must have sslmode=verify-full"));
    assert_each(&[
        (&[(url, "postgres://app_writer:0123456789abcdef@db.example/app?sslmode=require")], tls),
        (&[(url, "postgres://app_writer:0123456789abcdef@db.example/app?sslrootcert=verify-full")], tls),
        (&[(url, "postgres://app_writer:0123456789abcdef@10.0.0.1/app")], tls),
        (&[(url, "postgres://app_writer:0123456789abcdef@127.0.0.1/app")], None),
        (&[(url, "postgresql://app_writer:0123456789abcdef@localhost/app")], None),
        (&[(url, "postgres://app_writer:0123456789abcdef@[::1]/app")], None),
        (&[DEVELOPMENT, (url, "postgres://app_writer:short@db.example/app")], None),
        (&[(url, "mysql://app_writer:0123456789abcdef@127.0.0.1/app")], Some((url, "must be a postgres:// URL"))),
        (&[(url, "db.example")], Some((url, "is not a URL"))),
    ]);
}

#[test]
fn secret_03_remote_services_require_https() {
    let url = "OTLP__ENDPOINT";
    let (https, rest) =
        (Some((url, "must be an https URL")), Some((url, "must have no user, no query and no fragment")));
    assert_each(&[
        (&[(url, "https://collector.example")], None),
        (&[(url, "http://127.0.0.1:4318")], None),
        (&[(url, "http://collector.example")], https),
        (&[DEVELOPMENT, (url, "http://collector.example")], None),
        (&[DEVELOPMENT, (url, "ftp://127.0.0.1")], https),
        (&[(url, "https://app@collector.example")], rest),
        (&[(url, "https://:secret@collector.example")], rest),
        (&[(url, "https://collector.example/?a=b")], rest),
        (&[(url, "https://collector.example/#b")], rest),
        (&[("OTLP__TOKEN", "x")], Some(("OTLP__TOKEN", "has no effect without APP_OTLP__ENDPOINT"))),
        (&[("KEYS__VAULT__TOKEN", "x")], Some(("KEYS__VAULT__TOKEN", "has no effect without APP_KEYS__VAULT__URL"))),
    ]);
}

#[test]
fn secret_03_service_tokens_must_be_random() {
    let (collector, weak) = (CONTEXT[6], "must be random");
    for (name, around) in [("OTLP__TOKEN", &[collector][..]), ("KEYS__VAULT__TOKEN", &[CONTEXT[1], CONTEXT[3]])] {
        let with = |value: &str, more: &[(&str, &str)], expected: Option<(&str, &str)>| {
            assert_each(&[(&[around, &[(name, value)], more].concat(), expected)]);
        };
        with("89abcdef0123456", &[], Some((name, weak)));
        with("89abcdef01234567", &[], None);
        with("secret89abcdef01", &[], Some((name, weak)));
        with("root", &[DEVELOPMENT], None);
    }
}

/// Otherwise the request would time out first, and its error would not mention the vault.
#[test]
fn secret_03_vault_timeout_is_below_half_the_request_timeout() {
    let vault = |millis, request| [CONTEXT[1], CONTEXT[2], CONTEXT[3], ("KEYS__VAULT__TIMEOUT_MS", millis), request];
    let request = ("HTTP__REQUEST_TIMEOUT_MS", "1000");
    let wrong = Some(("KEYS__VAULT__TIMEOUT_MS", "must be less than half of APP_HTTP__REQUEST_TIMEOUT_MS"));
    assert_each(&[(&vault("499", request), None), (&vault("500", request), wrong)]);
}

#[test]
fn secret_03_quota_store_prefix_and_authorities_are_checked() {
    let url = ("QUOTA__REDIS_URL", "rediss://:Zk3v9QwXb7Lm2RtY@redis.example");
    let near = ("QUOTA__REDIS_URL", "redis://127.0.0.1");
    let (prefix, authorities) = ("QUOTA__REDIS_PREFIX", ("QUOTA__REDIS_CA_PATH", "r.pem"));
    let wrong = Some((prefix, "must be 1 to 64 letters"));
    let (longest, longer) = ("x".repeat(64), "x".repeat(65));
    assert_each(&[
        (&[url, authorities, (prefix, "notes-1_a.b:c")], None),
        (&[url, (prefix, &longest)], None),
        (&[url, (prefix, &longer)], wrong),
        (&[url, (prefix, "a b")], wrong),
        (&[near], None),
        (&[near, authorities], Some((authorities.0, "has no effect unless the URL is rediss://"))),
        (&[authorities], Some((authorities.0, "has no effect without APP_QUOTA__REDIS_URL"))),
    ]);
}

#[test]
fn secret_03_vault_key_and_mount_names_are_checked() {
    let vault = |name: &str, value: &str, expected: Option<(&str, &str)>| {
        let whole = [CONTEXT[1], CONTEXT[2], CONTEXT[3], (name, value)];
        assert_each(&[(&whole, expected)]);
    };
    for name in ["KEYS__VAULT__KEY", "KEYS__VAULT__MOUNT"] {
        let wrong = Some((name, "must be 1 to 40 letters"));
        vault(name, &"x".repeat(40), None);
        vault(name, &"x".repeat(41), wrong);
        for other in ["a b", ".a", "a/../b", "/a", "é"] {
            vault(name, other, wrong);
        }
    }
    vault("KEYS__VAULT__MOUNT", "team/transit", None);
    vault("KEYS__VAULT__KEY", "team/notes", Some(("KEYS__VAULT__KEY", "must be 1 to 40 letters")));
}

#[test]
fn secret_03_incomplete_internal_listener_is_rejected() {
    let needs = Some(("INTERNAL__LISTEN", "is required"));
    assert_each(&[
        (&[("INTERNAL__KEY_PATH", "k.pem")], needs),
        (&[("INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", "spiffe://acme.example/job")], needs),
        (&[("OIDC__REQUIRE_BOUND_TOKENS", "true")], Some(("OIDC__REQUIRE_BOUND_TOKENS", "needs client certificates"))),
    ]);
}
