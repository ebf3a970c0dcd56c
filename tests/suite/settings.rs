//! What each setting may be, at the ends of what it may.

use std::collections::BTreeMap;

use service::settings::{Faults, Profile, Settings, WhenLost};

use crate::start::SOUND;

/// A number, the least and the greatest that it may be.
const NUMBERS: [(&str, &str, &str); 46] = [
    ("HTTP__MAX_BODY_BYTES", "1", "16777216"),
    ("HTTP__MAX_CONNECTIONS", "1", "1000000"),
    ("HTTP__MAX_CONNECTIONS_PER_ADDRESS", "1", "1000000"),
    ("HTTP__MAX_CONCURRENT_REQUESTS", "1", "1000000"),
    ("HTTP__MAX_UNREAD_BYTES", "8388608", "1099511627776"),
    ("HTTP__STALL_TIMEOUT_MS", "1", "3600000"),
    ("HTTP__IDLE_TIMEOUT_MS", "1", "3600000"),
    ("HTTP__HEADER_TIMEOUT_MS", "1", "3600000"),
    ("HTTP__BODY_TIMEOUT_MS", "1", "3600000"),
    ("HTTP__REQUEST_TIMEOUT_MS", "100", "3600000"),
    ("HTTP__MAX_CONNECTION_AGE_MS", "1", "3600000"),
    ("HTTP__SHUTDOWN_GRACE_MS", "1", "3600000"),
    ("DATABASE__MAX_CONNECTIONS", "1", "1000"),
    ("DATABASE__ACQUIRE_TIMEOUT_MS", "1", "3600000"),
    ("DATABASE__STATEMENT_TIMEOUT_MS", "1", "3600000"),
    ("OIDC__LEEWAY_SECONDS", "0", "30"),
    ("OIDC__REFRESH_SECONDS", "1", "43200"),
    ("OIDC__MAX_STALENESS_SECONDS", "60", "86400"),
    ("OIDC__CACHED_TOKENS", "0", "10000000"),
    ("OIDC__MAX_TOKEN_LIFETIME_SECONDS", "1", "86400"),
    ("OIDC__FURTHER__PARTNER__MAX_TOKEN_LIFETIME_SECONDS", "1", "86400"),
    ("API_KEYS__MAX_LIFETIME_DAYS", "1", "365"),
    ("API_KEYS__REMEMBERED_SECONDS", "0", "300"),
    ("API_KEYS__CONCURRENT_HASHES", "1", "64"),
    ("REVOCATION__MAX_FEED_AGE_SECONDS", "2", "3600"),
    ("PENALTY__FREE_FAILURES", "0", "1000000"),
    ("PENALTY__FAILURES", "1", "1000"),
    ("PENALTY__SECONDS", "1", "3600"),
    ("THROTTLE__ADDRESS_PER_SECOND", "0.01", "1000000"),
    ("THROTTLE__ADDRESS_BURST", "1", "1000000"),
    ("QUOTA__READ_PER_MINUTE", "1", "1000000"),
    ("QUOTA__WRITE_PER_MINUTE", "1", "1000000"),
    ("QUOTA__SENSITIVE_PER_MINUTE", "1", "1000000"),
    ("QUOTA__EXPORT_PER_MINUTE", "1", "1000000"),
    ("QUOTA__TENANT_PER_MINUTE", "1", "1000000"),
    ("QUOTA__REDIS_TIMEOUT_MS", "1", "5000"),
    ("KEYS__USUAL_PER_MINUTE", "1", "1000000"),
    ("KEYS__REFRESH_MS", "1", "3600000"),
    ("KEYS__VAULT__TIMEOUT_MS", "1", "10000"),
    ("EXPORTS__MAX_ROWS", "1", "10000000"),
    ("IDEMPOTENCY__RETENTION_HOURS", "1", "720"),
    ("SECRETS__LOOK_EVERY_MS", "1", "3600000"),
    ("AUDIT__SEAL_EVERY_MS", "1", "3600000"),
    ("OTLP__SAMPLE_RATIO", "0", "1"),
    ("OTLP__METRICS_EVERY_MS", "1", "3600000"),
    ("OTLP__TIMEOUT_MS", "1", "3600000"),
];

/// Every word that a setting can be.
const WORDS: [(&str, &[&str]); 7] = [
    ("PROFILE", &["production", "development"]),
    ("REVOCATION__WHEN_LOST", &["refuse", "serve"]),
    ("TLS__MIN_VERSION", &["1.3", "1.2"]),
    ("HTTP__PROXY_HEADER", &["x-forwarded-for", "forwarded"]),
    ("KEYS__PROVIDER", &["keyset", "vault"]),
    ("LOG__FORMAT", &["json", "text"]),
    ("HTTP__DOCS", &["true", "false"]),
];

/// What makes all of these of use.
const AROUND: [(&str, &str); 10] = [
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
];

fn with(name: &str, value: &str) -> Result<Settings, Faults> {
    let around = AROUND.iter().map(|(name, value)| (format!("APP_{name}"), (*value).to_owned()));
    let mut variables: BTreeMap<_, _> = around.collect();
    variables.extend(SOUND.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables.insert(format!("APP_{name}"), value.to_owned());
    Settings::from_variables(variables)
}

fn assert_accepted(name: &str, value: &str) {
    if let Err(faults) = with(name, value) {
        panic!("{name} = {value}: {faults}");
    }
}

fn assert_refused(name: &str, value: &str) {
    let faults = with(name, value).unwrap_err().0;
    let [fault] = faults.as_slice() else { panic!("{name} = {value}: {faults:#?}") };
    assert_eq!(fault.variable, format!("APP_{name}"), "{value}");
}

#[test]
fn secret_03_a_number_is_accepted_within_its_bounds_and_nowhere_else() {
    for (name, least, greatest) in NUMBERS {
        assert_accepted(name, least);
        assert_accepted(name, greatest);
        let [least, greatest] = [least, greatest].map(|bound| bound.parse::<f64>().unwrap());
        let step = if least.fract() == 0.0 { 1.0 } else { least / 2.0 };
        for outside in [(least - step).to_string(), (greatest + step).to_string(), "many".to_owned()] {
            assert_refused(name, &outside);
        }
    }
}

#[test]
fn secret_03_a_word_is_accepted_as_it_is_written_and_no_other() {
    for (name, words) in WORDS {
        for word in words {
            assert_accepted(name, word);
        }
        for other in ["other", &format!("{}x", words[0])] {
            assert_refused(name, other);
        }
    }
}

#[test]
fn secret_03_nothing_said_is_the_safe_choice() {
    let sound = BTreeMap::from(SOUND.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let settings = Settings::from_variables(sound).unwrap();
    assert_eq!(settings.profile, Profile::Production);
    assert_eq!(settings.revocation.when_lost, WhenLost::Refuse);
    assert_eq!(settings.oidc.first.token_type, "at+jwt");
    assert_eq!(settings.oidc.first.max_token_lifetime, 900);
    assert!(settings.http.listen.ip().is_loopback());
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(settings.api_keys.concurrent_hashes, (processors / 2).max(1));
}

/// Some settings beside the sound ones, and the one fault that they have: of which, and what it says.
type Case<'a> = (&'a [(&'a str, &'a str)], Option<(&'a str, &'a str)>);

fn assert_each(cases: &[Case<'_>]) {
    for (given, expected) in cases {
        let mut variables = BTreeMap::from(SOUND.map(|(name, value)| (name.to_owned(), value.to_owned())));
        variables.extend(given.iter().map(|(name, value)| (format!("APP_{name}"), (*value).to_owned())));
        let faults = Settings::from_variables(variables).err().map(|faults| faults.0).unwrap_or_default();
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
fn secret_03_what_is_missing_hides_no_other_fault() {
    let mut variables = BTreeMap::from(SOUND.map(|(name, value)| (name.to_owned(), value.to_owned())));
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
    let faults = Settings::from_variables(variables).unwrap_err().0;
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
fn secret_03_a_password_is_judged_as_it_is_and_not_as_a_url_writes_it() {
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
fn secret_03_keys_are_fetched_twice_before_they_end() {
    let (refresh, staleness) = ("OIDC__REFRESH_SECONDS", "OIDC__MAX_STALENESS_SECONDS");
    let fault = Some((refresh, "must be at most half of max_staleness_seconds"));
    assert_each(&[
        (&[(refresh, "300"), (staleness, "600")], None),
        (&[(refresh, "301"), (staleness, "601")], fault),
        (&[(refresh, "1801")], fault),
        // The default goes by it.
        (&[(staleness, "60")], None),
    ]);
}

#[test]
fn secret_03_an_issuer_is_reached_over_tls_and_named_by_nothing_but_its_url() {
    let url = "OIDC__ISSUER";
    let (https, rest) = (Some((url, "must be an https URL")), Some((url, "must have no query and no fragment")));
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
fn secret_03_a_database_elsewhere_is_who_its_certificate_names() {
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
fn secret_03_what_a_service_is_sent_goes_over_tls_unless_it_is_near() {
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
        (&[("OTLP__TOKEN", "x")], Some(("OTLP__TOKEN", "is of no use without otlp.endpoint"))),
        (&[("KEYS__VAULT__TOKEN", "x")], Some(("KEYS__VAULT__TOKEN", "is of no use without keys.vault.url"))),
    ]);
}

#[test]
fn secret_03_a_token_for_another_service_is_random() {
    let (collector, weak) = (AROUND[6], "must be random");
    for (name, around) in [("OTLP__TOKEN", &[collector][..]), ("KEYS__VAULT__TOKEN", &[AROUND[1], AROUND[3]])] {
        let with = |value: &str, more: &[(&str, &str)], expected: Option<(&str, &str)>| {
            assert_each(&[(&[around, &[(name, value)], more].concat(), expected)]);
        };
        with("89abcdef0123456", &[], Some((name, weak)));
        with("89abcdef01234567", &[], None);
        with("secret89abcdef01", &[], Some((name, weak)));
        with("root", &[DEVELOPMENT], None);
    }
}

/// Else it would be the request that ends, and nobody would know that it was the vault.
#[test]
fn secret_03_a_vault_may_take_less_time_than_a_request() {
    let vault = |millis, request| [AROUND[1], AROUND[2], AROUND[3], ("KEYS__VAULT__TIMEOUT_MS", millis), request];
    let request = ("HTTP__REQUEST_TIMEOUT_MS", "1000");
    let wrong = Some(("KEYS__VAULT__TIMEOUT_MS", "must be less than half of http.request_timeout_ms"));
    assert_each(&[(&vault("499", request), None), (&vault("500", request), wrong)]);
}

#[test]
fn secret_03_what_the_store_of_quotas_is_called_and_verified_by() {
    let url = ("QUOTA__REDIS_URL", "rediss://:Zk3v9QwXb7Lm2RtY@redis.example");
    let near = ("QUOTA__REDIS_URL", "redis://127.0.0.1");
    let (prefix, authorities) = ("QUOTA__REDIS_PREFIX", ("QUOTA__REDIS_CA_PATH", "r.pem"));
    let wrong = Some((prefix, "must be 1 to 64 letters"));
    let (longest, longer) = ("x".repeat(64), "x".repeat(65));
    assert_each(&[
        (&[url, authorities, (prefix, "orders-1_a.b:c")], None),
        (&[url, (prefix, &longest)], None),
        (&[url, (prefix, &longer)], wrong),
        (&[url, (prefix, "a b")], wrong),
        (&[near], None),
        (&[near, authorities], Some((authorities.0, "is of no use unless quota.redis_url is rediss://"))),
        (&[authorities], Some((authorities.0, "is of no use without quota.redis_url"))),
    ]);
}

#[test]
fn secret_03_what_a_vault_calls_its_keys() {
    let vault = |name: &str, value: &str, expected: Option<(&str, &str)>| {
        let whole = [AROUND[1], AROUND[2], AROUND[3], (name, value)];
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
    vault("KEYS__VAULT__KEY", "team/orders", Some(("KEYS__VAULT__KEY", "must be 1 to 40 letters")));
}

#[test]
fn secret_03_half_an_internal_listener_is_told() {
    let needs = Some(("INTERNAL__LISTEN", "is required"));
    assert_each(&[
        (&[("INTERNAL__KEY_PATH", "k.pem")], needs),
        (&[("INTERNAL__SERVICES__JOB__CERTIFICATE_NAME", "spiffe://acme.example/job")], needs),
        (
            &[("OIDC__REQUIRE_BOUND_TOKENS", "true")],
            Some(("OIDC__REQUIRE_BOUND_TOKENS", "needs tls.client_ca_path, or the internal listener")),
        ),
    ]);
}
