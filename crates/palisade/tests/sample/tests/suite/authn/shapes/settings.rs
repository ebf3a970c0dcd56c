//! Settings of an issuer that would accept too much are faults (SECRET-03), and `check-config` names
//! what an issuer's settings give up. The commands `doctor` and `token explain`.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Output, Stdio},
};

use palisade::model::Clock;
use sample::access::{roles, scopes};
use serde_json::json;

use crate::support::{ACME, MisbehavingIssuer, PRODUCTION_SETTINGS, SERVICE, TestApp, TestKey, person, start_issuer};

/// Settings without `APP_OIDC__`, and the only fault, if there is one.
type Case<'a> = (&'a [(&'a str, &'a str)], Option<(&'a str, &'a str)>);

#[test]
fn secret_03_settings_of_issuers_that_accept_too_much_are_rejected() {
    let tenant = "0190a000-0000-7000-8000-00000000ac3e";
    let map = format!("a={tenant}");
    let twice = format!("a={tenant}, a={tenant}");
    let template = "https://login.example.com/{tid}/v2.0";
    let discovery = "https://login.example.com/organizations/.well-known/openid-configuration";
    let templated = [("ISSUER", template), ("TENANT_CLAIM", "tid"), ("TENANTS", tenant), ("DISCOVERY_URL", discovery)];
    let without = |index: usize| {
        let mut settings = templated.to_vec();
        settings.remove(index);
        settings
    };
    let (no_claim, no_tenants, no_address) = (without(1), without(2), without(3));
    let cases: [Case<'_>; 22] = [
        (&templated, None),
        (&no_claim, Some(("TENANT_CLAIM", "must be `tid`"))),
        (&no_tenants, Some(("TENANTS", "is required with braces"))),
        (&no_address, Some(("DISCOVERY_URL", "is required with braces"))),
        (&[("ISSUER", "https://login.example.com/{a}/{b}")], Some(("ISSUER", "expected one name in braces"))),
        (&[("DISCOVERY_URL", "http://login.example.com/x")], Some(("DISCOVERY_URL", "must be an https URL"))),
        (&[("JWKS_URL", "https://user:pw@login.example.com/x")], Some(("JWKS_URL", "must have no user"))),
        (&[("JWKS_URL", "https://a.example/x?p=1"), ("AUDIENCE", "a, b")], None),
        (
            &[("JWKS_URL", "https://a.example/x"), ("DISCOVERY_URL", "https://a.example/y")],
            Some(("DISCOVERY_URL", "has no effect")),
        ),
        (&[("AUDIENCE", "a, ")], Some(("AUDIENCE", "has an empty entry"))),
        (&[("TOKEN_TYPE", "none, at+jwt")], None),
        (&[("ALGORITHMS", "HS256")], Some(("ALGORITHMS", "`HS256`: expected"))),
        (&[("ALGORITHMS", "none")], Some(("ALGORITHMS", "`none`: expected"))),
        (
            &[("FIXED_CLIENT", "a"), ("CLIENT_CLAIM", "cid")],
            Some(("FIXED_CLIENT", "is for tokens that name no client")),
        ),
        (&[("SCOPE_MAP", "a=notes:read"), ("ROLE_MAP", "a=admin")], None),
        (&[("SCOPE_MAP", "a=unknown:scope")], Some(("SCOPE_MAP", "has a scope that this API does not have"))),
        (&[("ROLE_MAP", "a=service")], Some(("ROLE_MAP", "has a role that people cannot have"))),
        (&[("ROLE_MAP", "a")], Some(("ROLE_MAP", "expected `<name of the issuer>=<name of this service>`"))),
        (&[("TENANT_MAP", &map), ("TENANT_CLAIM", "/organization/*/id")], None),
        (&[("TENANT_MAP", &twice)], Some(("TENANT_MAP", "must name each of the issuer's tenants once"))),
        (&[("TENANT_CLAIM", "/*/id")], Some(("TENANT_CLAIM", "expected at most one part `*`"))),
        (&[("TENANT_TEMPLATE", "tenant-")], Some(("TENANT_TEMPLATE", "expected one name in braces"))),
    ];
    for (given, expected) in cases {
        let mut variables =
            BTreeMap::from(PRODUCTION_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        variables.extend(given.iter().map(|(name, value)| (format!("APP_OIDC__{name}"), (*value).to_owned())));
        let faults = sample::app().read_settings(variables).err().map(|faults| faults.0).unwrap_or_default();
        let found: Vec<_> = faults.iter().map(|fault| format!("{}: {}", fault.variable, fault.message)).collect();
        let is_expected = match (found.as_slice(), expected) {
            ([], None) => true,
            ([fault], Some((name, message))) => fault.starts_with(&format!("APP_OIDC__{name}: {message}")),
            _ => false,
        };
        assert!(is_expected, "{given:?}: expected {expected:?}, found {found:#?}");
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

#[test]
fn secret_03_check_config_names_what_settings_give_up() {
    let check = |more: &[(&str, &str)]| {
        let mut command = SERVICE.binary();
        let output = command.arg("check-config").envs(PRODUCTION_SETTINGS).envs(more.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    assert!(!check(&[]).contains("note:"), "{}", check(&[]));
    let relaxed = [
        ("APP_OIDC__TOKEN_TYPE", "none"),
        ("APP_OIDC__AUDIENCE_CLAIM", "client_id"),
        ("APP_OIDC__SUBJECT_CLAIM", "email"),
        ("APP_OIDC__FRACTIONAL_TIMES", "true"),
        ("APP_OIDC__JWKS_URL", "https://login.example.com/keys"),
        ("APP_OIDC__FIXED_CLIENT", "portal"),
        ("APP_OIDC__MAX_TOKEN_BYTES", "16384"),
        ("APP_OUTBOUND__ALLOWED_NETWORKS", "10.0.0.0/8"),
        ("APP_OUTBOUND__USE_PROXY", "true"),
    ];
    let shown = check(&relaxed);
    for (variable, _) in relaxed {
        assert!(shown.contains(&format!("note: {variable}: ")), "{variable} is not in {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authn_04_token_explain_names_rule_claim_and_caller() {
    let key = TestKey::es256("a");
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    let database = SERVICE.database().await;
    let mut variables = TestApp::variables(&database, &issuer.url);
    variables.insert("APP_OIDC__TENANT_CLAIM".to_owned(), "/org/*/id".to_owned());
    let explain = |token: &str| {
        let mut command = SERVICE.binary();
        command.args(["token", "explain"]).envs(&variables);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let signature = token.rsplit('.').next().unwrap();
        assert!(!text(&output).contains(signature), "the output has the token");
        (output.status.success(), text(&output))
    };
    let now = Clock::system().timestamp();
    let sign = |changes: &serde_json::Value| {
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": "a" }).to_string();
        key.sign_text(&header, &super::changed(issuer.claims(now), changes).to_string())
    };
    let acme = json!({ "org": { "a": { "id": ACME.id.to_string() } } });
    let (is_accepted, shown) = explain(&format!("{}\n", sign(&acme)));
    assert!(is_accepted, "{shown}");
    let tenant = format!("tenant: {}", ACME.id);
    for part in
        ["signature: verified", "kind: user", "subject: a-caller", "client: some-client", &tenant, "roles: admin"]
    {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let (is_accepted, shown) = explain(&sign(&json!({})));
    assert!(!is_accepted, "{shown}");
    for part in ["rejected: claims", "claim: `/org/*/id`, which APP_OIDC__TENANT_CLAIM names"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    for (changes, part) in [
        (json!({ "iss": "https://other.example" }), "rejected: issuer"),
        (json!({ "aud": "other" }), "rejected: audience"),
        (json!({ "nonce": "n" }), "claim: nonce"),
        (json!({ "exp": now - 3_600, "iat": now - 4_000 }), "rejected: expired"),
    ] {
        let (is_accepted, shown) = explain(&sign(&changes));
        assert!(!is_accepted && shown.contains(part), "{part} is not in {shown}");
    }
    assert!(explain("abc").1.contains("rejected: malformed"));
    issuer.set_down(true);
    assert!(explain(&sign(&acme)).1.contains("signature: NOT CHECKED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fail_01_doctor_says_what_works_and_what_to_do() {
    let database = SERVICE.database().await;
    let issuer = start_issuer(Clock::system()).await;
    let doctor = |changes: &[(&str, &str)]| {
        let mut command = SERVICE.binary();
        command.arg("doctor").envs(TestApp::variables(&database, issuer.url())).envs(changes.iter().copied());
        let output = command.output().unwrap();
        (output.status.success(), text(&output))
    };
    let (is_ok, shown) = doctor(&[]);
    assert!(is_ok, "{shown}");
    for part in ["ok    issuer http://", "ok    database", "ok    master keys"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let nowhere = [
        ("APP_OIDC__ISSUER", "http://127.0.0.1:9"),
        ("APP_QUOTA__REDIS_URL", "redis://127.0.0.1:9"),
        ("APP_OTLP__ENDPOINT", "http://127.0.0.1:9"),
    ];
    let (is_ok, shown) = doctor(&nowhere);
    assert!(!is_ok, "{shown}");
    for part in ["FAIL  issuer http://127.0.0.1:9", "ok    database", "FAIL  quota store", "FAIL  collector", "do: "] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    // It says nothing of secrets.
    let token = issuer.access_token(&person(&ACME, roles::VIEWER), &[scopes::NOTES_READ]);
    assert!(!shown.contains(&token) && !shown.contains("postgres://"), "{shown}");
}
