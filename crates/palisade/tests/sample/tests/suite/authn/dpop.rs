//! Tokens that are bound to a key of the client, and the proofs of its requests (RFC 9449,
//! AUTHN-19). The kit's client signs real proofs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    DpopClient, PRODUCTION_SETTINGS, Proof, Reply, SERVICE, TestApp, TestKey, dpop::get_with_proofs, run_as_superuser,
};

const PATH: &str = "/v1/me";

/// An app, a client, its token, and a nonce of the app.
struct Setup {
    app: TestApp,
    client: DpopClient,
    token: String,
    nonce: String,
}

impl Setup {
    async fn new(mode: &str) -> Self {
        Self::of(SERVICE.start_with(&[("APP_OIDC__DPOP", mode)]).await, DpopClient::default()).await
    }

    async fn of(app: TestApp, client: DpopClient) -> Self {
        let nonce = nonce_of(&app.anonymous().get(PATH).await);
        Self { token: client.token(&app), app, client, nonce }
    }

    fn proof(&self) -> Proof {
        self.client.proof(&self.app, "GET", &format!("http://{}{PATH}", self.app.address), &self.token, &self.nonce)
    }

    async fn get(&self, proofs: &[String]) -> Reply {
        get_with_proofs(&self.app.anonymous(), PATH, &self.token, proofs).await
    }

    async fn get_with(&self, proof: &Proof) -> Reply {
        self.get(&[self.client.sign(proof)]).await
    }
}

fn nonce_of(reply: &Reply) -> String {
    reply.header("dpop-nonce").unwrap_or_default().to_owned()
}

/// Asserts a 401 whose event has this reason and part, and whose challenge has this error.
#[track_caller]
fn assert_refused(reply: &Reply, reason: &str, part: Option<&str>, error: &str, case: &str) {
    assert_eq!(reply.problem(401), "unauthenticated", "{case}");
    let event = reply.event("authn_token_invalid");
    assert_eq!((event["reason"].as_str(), event.get("claim").map(String::as_str)), (reason, part), "{case}");
    let challenges: Vec<_> = reply.headers.get_all("www-authenticate").iter().map(|it| it.to_str().unwrap()).collect();
    let expected = format!("error=\"{error}\", algs=\"ES256 EdDSA Ed25519 PS256 RS256\", resource_metadata=\"http://");
    assert!(challenges.len() == 1 && challenges[0].starts_with("DPoP realm="), "{case}: {challenges:?}");
    assert!(challenges[0].contains(&expected), "{case}: {challenges:?}");
    assert!(!nonce_of(reply).is_empty(), "{case}");
}

#[tokio::test]
async fn authn_19_bound_token_works_with_a_proof_for_each_request() {
    let setup = Setup::new("optional").await;
    let mut without_nonce = setup.proof();
    without_nonce.claims.as_object_mut().unwrap().remove("nonce");
    let reply = setup.get_with(&without_nonce).await;
    assert_refused(&reply, "proof_nonce", None, "use_dpop_nonce", "no nonce");
    let proof = Proof { claims: with(&setup.proof().claims, "nonce", json!(nonce_of(&reply))), ..setup.proof() };
    // Before and after the token is cached.
    let signed = [setup.client.sign(&proof)];
    assert_eq!(setup.get(&signed).await.ok(200)["kind"], "user");
    let replayed = setup.get(&signed).await;
    assert_refused(&replayed, "proof", Some("replayed"), "invalid_dpop_proof", "replayed");
    setup.get_with(&setup.proof()).await.ok(200);
    // The query is no part of `htu`, which may be written with one.
    let mut proof = setup.proof();
    proof.claims["htu"] = json!(format!("{}?limit=1#top", proof.claims["htu"].as_str().unwrap()));
    setup.get_with(&proof).await.ok(200);
    // Other refusals have a challenge for each scheme (RFC 9449 section 7.1).
    let expired = setup.app.forge().claim("exp", 1).token();
    for (reply, error) in [
        (setup.app.anonymous().get(PATH).await, None),
        (setup.app.bearer(expired.clone()).get(PATH).await, Some("error=\"invalid_token\"")),
        (get_with_proofs(&setup.app.anonymous(), PATH, &expired, &[]).await, Some("error=\"invalid_token\"")),
    ] {
        reply.problem(401);
        let challenges: Vec<_> = reply.headers.get_all("www-authenticate").iter().collect();
        let schemes = challenges.iter().map(|it| it.to_str().unwrap().split_once(' ').unwrap());
        let schemes: Vec<_> = schemes.map(|(scheme, rest)| (scheme, rest.contains("error="))).collect();
        assert_eq!(schemes, [("Bearer", error.is_some()), ("DPoP", error.is_some())], "{challenges:?}");
        let has_error = |it: &&http::HeaderValue| it.to_str().unwrap().contains(error.unwrap_or_default());
        assert!(challenges.iter().all(has_error), "{challenges:?}");
    }
    // A token without a key is a bearer token.
    setup.app.bearer(setup.app.forge().token()).get(PATH).await.ok(200);
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut changed = claims.clone();
    changed[name] = value;
    changed
}

/// Proofs with one fault each: what is wrong, the part that the event names, and the change.
fn faults(setup: &Setup) -> Vec<(&'static str, &'static str, Proof)> {
    let now = setup.app.clock.timestamp();
    let valid = setup.proof();
    let url = valid.claims["htu"].as_str().unwrap().to_owned();
    let claim = |name: &str, value: Value| Proof { claims: with(&valid.claims, name, value), ..valid.clone() };
    let header = |name: &str, value: Value| Proof { header: with(&valid.header, name, value), ..valid.clone() };
    let private = with(&valid.header["jwk"], "d", json!("AAAA"));
    let strange = DpopClient::default().jwk();
    vec![
        ("another method", "htm", claim("htm", json!("POST"))),
        ("a method in lower case", "htm", claim("htm", json!("get"))),
        ("no method", "htm", claim("htm", Value::Null)),
        ("another path", "htu", claim("htu", json!(format!("{url}/sessions")))),
        ("a slash at the end", "htu", claim("htu", json!(format!("{url}/")))),
        ("another host", "htu", claim("htu", json!("http://localhost.example/v1/me"))),
        ("another scheme", "htu", claim("htu", json!(url.replace("http:", "https:")))),
        ("a user", "htu", claim("htu", json!(url.replace("//", "//ann@")))),
        ("no URL", "htu", claim("htu", json!("/v1/me"))),
        ("of another token", "ath", claim("ath", json!("A".repeat(43)))),
        ("of no token", "ath", claim("ath", Value::Null)),
        ("old", "iat", claim("iat", json!(now - 301))),
        ("from the future", "iat", claim("iat", json!(now + 60))),
        ("a time as text", "iat", claim("iat", json!(now.to_string()))),
        ("no time", "iat", claim("iat", Value::Null)),
        ("no id", "jti", claim("jti", Value::Null)),
        ("an empty id", "jti", claim("jti", json!(""))),
        ("a long id", "jti", claim("jti", json!("x".repeat(256)))),
        ("an access token", "typ", header("typ", json!("at+jwt"))),
        ("no type", "typ", header("typ", Value::Null)),
        ("no algorithm", "alg", header("alg", json!("none"))),
        ("a symmetric algorithm", "alg", header("alg", json!("HS256"))),
        ("the algorithm of another key type", "alg", header("alg", json!("RS256"))),
        ("a private key", "jwk", header("jwk", private)),
        ("a symmetric key", "jwk", header("jwk", json!({ "kty": "oct", "k": "AAAA" }))),
        ("no key", "jwk", header("jwk", Value::Null)),
        ("another key", "jwk", header("jwk", strange)),
        ("an extension", "header", header("crit", json!(["exp"]))),
        ("a key elsewhere", "header", header("jku", json!("https://example.com/keys"))),
        ("too large", "header", claim("more", json!("x".repeat(4_096)))),
    ]
}

#[tokio::test]
async fn authn_19_invalid_proofs_are_rejected() {
    let limits = [("APP_FAILURE_LIMIT__FREE_FAILURES", "1000"), ("APP_FAILURE_LIMIT__MAX_FAILURES", "1000")];
    let app = SERVICE.start_with(&[&limits[..], &[("APP_OIDC__DPOP", "required")]].concat()).await;
    let setup = Setup::of(app, DpopClient::default()).await;
    setup.get_with(&setup.proof()).await.ok(200);
    for (case, part, proof) in faults(&setup) {
        let reply = setup.get_with(&proof).await;
        assert_refused(&reply, "proof", Some(part), "invalid_dpop_proof", case);
    }
    let signed = setup.client.sign(&setup.proof());
    let (input, signature) = signed.rsplit_once('.').unwrap();
    let foreign = DpopClient::default().sign(&setup.proof());
    for (case, part, proofs) in [
        ("no proof", "header", vec![]),
        ("two proofs", "header", vec![signed.clone(), setup.client.sign(&setup.proof())]),
        ("no JWS", "malformed", vec!["proof".to_owned()]),
        ("signed with another key", "signature", vec![foreign]),
        ("another signature", "signature", vec![format!("{input}.{}", signature.chars().rev().collect::<String>())]),
    ] {
        let reply = setup.get(&proofs).await;
        assert_refused(&reply, "proof", Some(part), "invalid_dpop_proof", case);
    }
    let mut forged = setup.nonce.clone();
    forged.replace_range(20..21, if &forged[20..21] == "A" { "B" } else { "A" });
    for nonce in [json!("AAAA"), json!(forged), json!(1)] {
        let proof = Proof { claims: with(&setup.proof().claims, "nonce", nonce.clone()), ..setup.proof() };
        assert_refused(&setup.get_with(&proof).await, "proof_nonce", None, "use_dpop_nonce", &nonce.to_string());
    }
    // None of the refused proofs used the id of a valid one.
    setup.get(&[signed]).await.ok(200);
}

#[tokio::test]
async fn authn_19_bound_token_is_no_bearer_token() {
    for mode in ["off", "optional", "required"] {
        let setup = Setup::new(mode).await;
        let binding = |reply: &Reply, case: &str| {
            assert_eq!(reply.problem(401), "unauthenticated", "{mode}: {case}");
            assert_eq!(reply.event("authn_token_invalid")["reason"], "binding", "{mode}: {case}");
        };
        binding(&setup.app.bearer(setup.token.clone()).get(PATH).await, "bound, as a bearer token");
        let with_proof = setup.app.bearer(setup.token.clone());
        let request = with_proof.request(http::Method::GET, PATH).header("dpop", setup.client.sign(&setup.proof()));
        binding(&with_proof.send(request).await, "bound, as a bearer token with a proof");
        let unbound = setup.app.forge().token();
        let proof = setup.client.sign(&setup.proof());
        binding(&get_with_proofs(&setup.app.anonymous(), PATH, &unbound, &[proof]).await, "unbound, with a proof");
        let bearer = setup.app.bearer(unbound).get(PATH).await;
        let bound = setup.get_with(&setup.proof()).await;
        match mode {
            "off" => {
                binding(&bound, "bound");
                assert_eq!(nonce_of(&bound), "");
                bearer.ok(200);
            }
            "optional" => drop((bound.ok(200), bearer.ok(200))),
            _ => {
                bound.ok(200);
                binding(&bearer, "unbound");
            }
        }
    }
}

#[tokio::test]
async fn authn_19_proof_is_used_once_by_all_replicas() {
    let database = SERVICE.database().await;
    let common = [
        ("APP_OIDC__DPOP", "required"),
        ("APP_SECRETS__MAC_KEY", "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY="),
        ("APP_HTTP__PUBLIC_URL", "http://localhost:9/"),
    ];
    let first = Setup::of(SERVICE.start_on(database.clone(), &common).await, DpopClient::default()).await;
    let issuer = first.app.issuer.url().to_owned();
    let second = SERVICE.start_on(database, &[&common[..], &[("APP_OIDC__ISSUER", &issuer)]].concat()).await;
    second.wait_until_ready().await;
    let proof = |url: &str| first.client.proof(&first.app, "GET", url, &first.token, &first.nonce);
    // The public URL counts, not the address of the replica.
    let of_replica = proof(&format!("http://{}{PATH}", first.app.address));
    assert_refused(&first.get_with(&of_replica).await, "proof", Some("htu"), "invalid_dpop_proof", "address");
    let signed = [first.client.sign(&proof("http://localhost:9/v1/me"))];
    let at_second = async || get_with_proofs(&second.anonymous(), PATH, &first.token, &signed).await;
    at_second().await.ok(200);
    for reply in [first.get(&signed).await, at_second().await] {
        assert_refused(&reply, "proof", Some("replayed"), "invalid_dpop_proof", "at both replicas");
    }
    // Many at once: one is the first.
    let signed = [first.client.sign(&proof("http://localhost:9/v1/me"))];
    let calls = (0..20).map(|number| {
        let replica = if number % 2 == 0 { &first.app } else { &second };
        let (caller, token, signed) = (replica.anonymous(), &first.token, &signed);
        async move { get_with_proofs(&caller, PATH, token, signed).await.status }
    });
    let statuses = futures_util::future::join_all(calls).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
}

#[tokio::test]
async fn authn_19_nonces_end_after_five_minutes() {
    let setup = Setup::new("required").await;
    setup.app.clock.advance(Duration::from_mins(5));
    setup.get_with(&setup.proof()).await.ok(200);
    setup.app.clock.advance(Duration::from_secs(1));
    let reply = setup.get_with(&setup.proof()).await;
    assert_refused(&reply, "proof_nonce", None, "use_dpop_nonce", "old nonce");
    let proof = Proof { claims: with(&setup.proof().claims, "nonce", json!(nonce_of(&reply))), ..setup.proof() };
    setup.get_with(&proof).await.ok(200);
}

#[tokio::test]
async fn authn_19_proofs_have_an_algorithm_of_the_list() {
    let setup = Setup::new("required").await;
    let Setup { mut app, .. } = setup;
    for key in [TestKey::eddsa("c"), TestKey::rs256("c"), TestKey::ps256("c")] {
        let setup = Setup::of(app, DpopClient::new(key)).await;
        setup.get_with(&setup.proof()).await.ok(200);
        app = setup.app;
    }
    let setup = Setup::of(app, DpopClient::new(TestKey::es384("c"))).await;
    assert_refused(&setup.get_with(&setup.proof()).await, "proof", Some("alg"), "invalid_dpop_proof", "ES384");
}

#[tokio::test]
async fn authn_19_no_proof_is_accepted_without_the_record_of_used_ones() {
    let setup = Setup::new("required").await;
    run_as_superuser(&setup.app, "drop function palisade.use_once(bytea, timestamptz)".to_owned()).await;
    assert_eq!(setup.get_with(&setup.proof()).await.problem(503), "unavailable");
}

#[test]
fn authn_19_settings_that_cannot_work_prevent_startup() {
    let faults = |added: &[(&str, &str)]| {
        let variables = PRODUCTION_SETTINGS.iter().chain(added);
        let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let faults = sample::app().read_settings(variables).err().map(|faults| faults.0).unwrap_or_default();
        faults.into_iter().map(|fault| fault.variable).collect::<Vec<_>>()
    };
    let optional = ("APP_OIDC__DPOP", "optional");
    let required = ("APP_OIDC__DPOP", "required");
    let public_url = ("APP_HTTP__PUBLIC_URL", "https://api.example.com");
    let proxy = ("APP_HTTP__TRUSTED_PROXIES", "10.0.0.0/24");
    let sessions = ("APP_SESSIONS__CLIENT_ID", "web");
    assert_eq!(faults(&[optional]), ["APP_HTTP__PUBLIC_URL"]);
    assert_eq!(faults(&[public_url, proxy, sessions, optional]), [""; 0]);
    assert_eq!(faults(&[public_url, proxy, required]), [""; 0]);
    assert_eq!(faults(&[public_url, proxy, sessions, required]), ["APP_OIDC__DPOP"]);
}
