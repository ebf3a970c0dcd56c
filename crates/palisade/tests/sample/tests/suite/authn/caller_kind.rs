//! Services and users told apart by the claims of `service_claims` and `user_claims` (AUTHN-07),
//! and lists that fail at startup because every caller matches them (SECRET-03).

use std::collections::BTreeMap;

use palisade::settings::ClaimMatch;
use serde_json::{Value, json};

use crate::support::{PRODUCTION_SETTINGS, SERVICE, authn::reject_reason};

#[test]
fn authn_07_marks_match_exactly_except_for_the_wildcard() {
    let cases = [
        ("kind=app", json!("app"), true),
        ("kind=app", json!(["x", "app"]), true),
        ("kind=app", json!("App"), false),
        ("kind=app", json!("app "), false),
        ("kind=app", json!([["app"]]), false),
        ("kind=app", json!({ "app": true }), false),
        ("kind=a=b", json!("a=b"), true),
        ("kind=job-*", json!("job-1"), true),
        ("kind=job-*", json!("a-job-1"), false),
        ("kind=*@clients", json!("x@clients"), true),
        ("kind=*@clients", json!("@clients"), true),
        ("kind=*@clients", json!("x@clients.example"), false),
        ("kind=*", json!("anything"), true),
        ("kind=*", json!(["anything"]), true),
        ("kind=*", json!(""), false),
        ("kind=*", json!(" "), false),
        ("kind=*", json!([]), false),
        ("kind=*", json!(true), false),
        ("kind=*", Value::Null, false),
        ("/a/kind=app", json!("app"), false),
    ];
    for (mark, value, expected) in cases {
        let claims = json!({ "kind": value });
        let mark: ClaimMatch = mark.parse().unwrap();
        assert_eq!(mark.is_in(claims.as_object().unwrap()), expected, "{mark:?} in {claims}");
    }
    let nested = json!({ "a": { "kind": "app" } });
    assert!("/a/kind=app".parse::<ClaimMatch>().unwrap().is_in(nested.as_object().unwrap()));
    for wrong in ["", "kind", "=app", "kind=", "kind=a*b", "kind=*a*", "kind=**", "kind =a", "kind= a", "ki*=a"] {
        assert!(wrong.parse::<ClaimMatch>().is_err(), "{wrong}");
    }
}

/// Settings added to valid ones, and the setting and the text of the one fault they cause.
type Case<'a> = (&'a [(&'a str, &'a str)], Option<(&'a str, &'a str)>);

#[test]
fn secret_03_marks_that_match_every_caller_are_rejected() {
    let faults = |given: &[(&str, &str)]| {
        let mut variables =
            BTreeMap::from(PRODUCTION_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        variables.extend(given.iter().map(|(name, value)| (format!("APP_OIDC__{name}"), (*value).to_owned())));
        let faults = sample::app().read_settings(variables).err().map(|faults| faults.0).unwrap_or_default();
        faults.into_iter().map(|fault| format!("{}: {}", fault.variable, fault.message)).collect::<Vec<_>>()
    };
    let services = "SERVICE_CLAIMS";
    let users = "USER_CLAIMS";
    let every = "has a mark that every token of the issuer has";
    let rights = "has a mark that tokens of programs have too";
    let form = "expected `<claim>=<value>`";
    let cases: [Case<'_>; 20] = [
        (&[(services, "gty=client-credentials, sub=*@clients"), (users, "sub=auth0|*")], None),
        (&[(users, "scp=*"), ("SCOPE_CLAIM", "scp"), ("SERVICE_SCOPE_CLAIM", "roles")], None),
        (&[(services, "client_id=*"), (users, "sid=*"), ("CLIENT_CLAIM", "azp")], None),
        (&[(services, "idtyp=app")], Some((users, "is required with service_claims"))),
        (&[(services, "sub")], Some((services, form))),
        (&[(users, "sid=*, x=a*b")], Some((users, form))),
        (&[(services, "a=b"), (users, "c=d, a=b")], Some((users, "has a mark that service_claims has too"))),
        (&[(users, "sub=*")], Some((users, every))),
        (&[(users, "/sub=*")], Some((users, every))),
        (&[(users, "azp=*")], Some((users, every))),
        (&[(users, "iss=https://login.example.com")], Some((users, every))),
        (&[(users, "aud=api://*")], Some((users, every))),
        (&[(users, "client_id=*")], Some((users, every))),
        (&[(users, "cid=*"), ("CLIENT_CLAIM", "cid")], Some((users, every))),
        (&[(users, "tid=*"), ("TENANT_CLAIM", "/tid")], Some((users, every))),
        (&[(services, "sub=*"), (users, "sid=*")], Some((services, every))),
        (&[(users, "scope=*")], Some((users, rights))),
        (&[(users, "scp=*"), ("SCOPE_CLAIM", "scp")], Some((users, rights))),
        (&[(users, "/realm_access/roles=*"), ("ROLES_CLAIM", "/realm_access/roles")], Some((users, rights))),
        (&[(users, "roles=*")], Some((users, rights))),
    ];
    for (given, expected) in cases {
        let found = faults(given);
        let expected = expected.map(|(name, message)| format!("APP_OIDC__{name}: {message}"));
        let is_expected = match (found.as_slice(), &expected) {
            ([], None) => true,
            ([fault], Some(expected)) => fault.starts_with(expected),
            _ => false,
        };
        assert!(is_expected, "{given:?}: expected {expected:?}, found {found:#?}");
    }
    // A further issuer does not inherit the marks of the first.
    let further = [
        ("FURTHER__PARTNER__ISSUER", "https://login.partner.example"),
        ("FURTHER__PARTNER__TENANTS", "0190a000-0000-7000-8000-000000061063"),
        ("FURTHER__PARTNER__SERVICE_CLAIMS", "idtyp=app"),
        (users, "sid=*"),
    ];
    let found = faults(&further);
    assert!(
        found.len() == 1 && found[0].starts_with("APP_OIDC__FURTHER__PARTNER__USER_CLAIMS: is required"),
        "{found:#?}"
    );
}

#[tokio::test]
async fn authn_07_tokens_with_no_or_two_kinds_of_caller_are_rejected() {
    let marks = [
        ("APP_OIDC__SERVICE_CLIENTS", "job"),
        ("APP_OIDC__SERVICE_CLAIMS", "kind=program"),
        ("APP_OIDC__USER_CLAIMS", "kind=user, sid=*"),
    ];
    let app = SERVICE.start_with(&marks).await;
    let me = async |claims: Value| {
        let forge = claims.as_object().unwrap().iter();
        let forge = forge.fold(app.forge(), |forge, (name, value)| forge.claim(name, value.clone()));
        app.bearer(forge.token()).get("/v1/me").await
    };
    for (claims, kind) in [
        (json!({ "kind": "user" }), "user"),
        (json!({ "sid": "1" }), "user"),
        (json!({ "kind": "program", "client_id": "job" }), "service"),
        (json!({ "sub": "job", "client_id": "job" }), "service"),
        // Some issuers name the client in `azp` only.
        (json!({ "sub": "job", "client_id": null, "azp": "job" }), "service"),
    ] {
        assert_eq!(me(claims.clone()).await.ok(200)["kind"], kind, "{claims}");
    }
    for (claims, reason) in [
        (json!({}), "caller_kind"),
        (json!({ "client_id": "job" }), "caller_kind"),
        (json!({ "kind": "program", "sid": "1", "client_id": "job" }), "caller_kind"),
        (json!({ "kind": ["program", "user"], "client_id": "job" }), "caller_kind"),
        (json!({ "sub": "job", "client_id": "job", "sid": "1" }), "caller_kind"),
        (json!({ "kind": "program" }), "service_client"),
        (json!({ "kind": "program", "sid": "1" }), "service_client"),
        (json!({ "kind": "program", "client_id": "web", "azp": "job" }), "service_client"),
        (json!({ "sub": "other", "client_id": "other", "kind": "user" }), "service_client"),
        (json!({ "sub": "other", "client_id": null, "azp": "other", "kind": "user" }), "service_client"),
    ] {
        assert_eq!(reject_reason(&me(claims.clone()).await), reason, "{claims}");
    }
}
