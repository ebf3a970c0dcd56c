//! What production refuses: a public URL without TLS, credentials in URLs, and risks that
//! `APP_ACCEPTED_RISKS` does not name.

use super::{CONTEXT, DEVELOPMENT, assert_each, table, valid};

/// Otherwise all callers have the address of the proxy, and one of them can use up its limits.
#[test]
fn secret_03_a_public_url_needs_tls_or_trusted_proxies() {
    let (url, proxies, accepted) = ("HTTP__PUBLIC_URL", "HTTP__TRUSTED_PROXIES", ("ACCEPTED_RISKS", "http_public_url"));
    let fault = Some((proxies, "is required with this APP_HTTP__PUBLIC_URL and without TLS"));
    assert_each(&[
        (&[(url, "https://api.example.com")], fault),
        (&[accepted, (url, "http://api.example.com")], fault),
        (&[(url, "https://api.example.com"), (proxies, "127.0.0.1")], None),
        (&[(url, "http://127.0.0.1:8080")], None),
        (&[(url, "http://localhost:8080")], None),
        (&[DEVELOPMENT, (url, "https://api.example.com")], None),
    ]);
}

#[test]
fn secret_03_urls_have_no_credentials() {
    let bare = "must have no user, no query and no fragment";
    for (name, more) in [
        ("HTTP__PUBLIC_URL", &[("HTTP__TRUSTED_PROXIES", "127.0.0.1")][..]),
        ("OIDC__ISSUER", &[]),
        ("OIDC__FURTHER__PARTNER__ISSUER", &[CONTEXT[8]]),
        ("OTLP__ENDPOINT", &[]),
        ("KEYS__VAULT__URL", &CONTEXT[2..4]),
    ] {
        for url in ["https://user@api.example", "https://user:Zk3v9QwX@api.example", "https://:Zk3v9QwX@api.example"] {
            assert_each(&[
                (&[more, &[(name, url)]].concat(), Some((name, bare))),
                (&[more, &[DEVELOPMENT, (name, url)]].concat(), Some((name, bare))),
            ]);
        }
        assert_each(&[(&[more, &[(name, "https://api.example")]].concat(), None)]);
    }
    assert_each(&[(&[("HTTP__PUBLIC_URL", "ftp://localhost")], Some(("HTTP__PUBLIC_URL", "must be an https URL")))]);
}

/// Each risk with a setting, an unsafe value, and the nearest safe one.
const RISKS: [(&str, &str, &str, &str); 14] = [
    ("http_public_url", "HTTP__PUBLIC_URL", "http://api.example.com", "https://api.example.com"),
    ("wide_proxies", "HTTP__TRUSTED_PROXIES", "10.0.0.0/23", "10.0.0.0/24"),
    ("wide_proxies", "HTTP__TRUSTED_PROXIES", "10.0.0.1,2001:db8::/63", "10.0.0.1,2001:db8::/64"),
    ("wide_proxies", "HTTP__TRUSTED_PROXIES", "10.0.0.0/8", "127.0.0.0/8"),
    ("trace_logs", "LOG__FILTER", "trace", "debug"),
    ("trace_logs", "LOG__FILTER", "info,hyper=trace", "info,hyper=debug"),
    ("trace_logs", "LOG__FILTER", "info,hyper", "info,hyper=off"),
    ("trace_logs", "LOG__FILTER", "info,[{subject=alice}]", "info,[call]=debug"),
    ("long_tokens", "OIDC__MAX_TOKEN_LIFETIME_SECONDS", "7201", "7200"),
    ("long_tokens", "OIDC__FURTHER__PARTNER__MAX_TOKEN_LIFETIME_SECONDS", "7201", "7200"),
    ("stale_revocations", "REVOCATION__ON_STALE_FEED", "serve", "refuse"),
    ("stale_revocations", "REVOCATION__MAX_FEED_AGE_SECONDS", "301", "300"),
    ("stale_keys", "OIDC__REFRESH_SECONDS", "3601", "3600"),
    ("stale_keys", "OIDC__MAX_STALENESS_SECONDS", "14401", "14400"),
];

#[test]
fn secret_03_production_refuses_risks_that_are_not_accepted_by_name() {
    for (risk, name, unsafe_value, safe) in RISKS {
        let context: &[(&str, &str)] = match name {
            "HTTP__PUBLIC_URL" => &[("HTTP__TRUSTED_PROXIES", "127.0.0.1")],
            "OIDC__REFRESH_SECONDS" => &[("OIDC__MAX_STALENESS_SECONDS", "14400")],
            _ if name.contains("PARTNER") => &CONTEXT[7..9],
            _ => &[],
        };
        let with = |more: &[(&str, &str)], expected| assert_each(&[(&[context, more].concat(), expected)]);
        let advice = format!("add `{risk}` to APP_ACCEPTED_RISKS");
        with(&[(name, safe)], None);
        with(&[(name, unsafe_value)], Some((name, &advice)));
        with(&[(name, unsafe_value), ("ACCEPTED_RISKS", risk)], None);
        with(&[(name, unsafe_value), DEVELOPMENT], None);
        let others: Vec<&str> = RISKS.iter().map(|(other, ..)| *other).filter(|other| *other != risk).collect();
        with(&[(name, unsafe_value), ("ACCEPTED_RISKS", &others.join(", "))], Some((name, &advice)));
    }
    let words = table().find(|(variable, _)| variable == "APP_ACCEPTED_RISKS").unwrap().1.shape.words;
    assert!(words.iter().all(|word| RISKS.iter().any(|(risk, ..)| risk == word)), "{words:?}");
    // Of several words, the fault names the wrong one.
    let expected = |word: &'static str| Some(("ACCEPTED_RISKS", word));
    assert_each(&[
        (&[("ACCEPTED_RISKS", "stale_keys, all")], expected("`all`: expected `http_public_url` or")),
        (&[("ACCEPTED_RISKS", "*")], expected("`*`: expected `http_public_url` or")),
    ]);
}

/// All at once, and a further issuer has no fault for a lifetime that it inherits.
#[test]
fn secret_03_all_risks_are_reported_at_once() {
    let mut variables = valid();
    variables.extend(RISKS.map(|(_, name, value, _)| (format!("APP_{name}"), value.to_owned())));
    variables.remove("APP_OIDC__FURTHER__PARTNER__MAX_TOKEN_LIFETIME_SECONDS");
    variables.extend(CONTEXT[7..9].iter().map(|(name, value)| (format!("APP_{name}"), (*value).to_owned())));
    let faults = sample::app().read_settings(variables.clone()).unwrap_err().0;
    let found: std::collections::BTreeSet<String> = faults.iter().map(|fault| fault.variable.clone()).collect();
    let expected =
        variables.into_keys().filter(|name| RISKS.iter().any(|(_, risky, ..)| *name == format!("APP_{risky}")));
    assert_eq!(found, expected.collect(), "{faults:#?}");
}
