//! The documented providers (AUTHN-07): runs every example of docs/issuers.md unchanged, and
//! attacks each documented configuration with altered tokens.

use std::{collections::BTreeSet, fs, path::Path};

use palisade::authz::Role;
use serde_json::{Value, json};
use service::access::{roles, scopes};

use crate::support::{ACME, MisbehavingIssuer, Reply, SERVICE, TestApp, TestKey, UNTHROTTLED, authn::reject_reason};

const EXAMPLES: &str = "docs/issuers.md";

/// A section of the page: the configuration in use, and the example tokens with their responses.
struct Provider {
    name: String,
    configuration: String,
    examples: Vec<(Value, Value)>,
    _issuer: MisbehavingIssuer,
    key: TestKey,
    app: TestApp,
}

/// The code blocks of one language in a section.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    section.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

impl Provider {
    /// Every provider, each with its own service. The label tells the files of the tests apart.
    async fn all(label: &str) -> Vec<Self> {
        let text = fs::read_to_string(EXAMPLES).unwrap();
        let mut all = Vec::new();
        for section in text.split("\n## ").filter(|section| !blocks(section, "json").is_empty()) {
            all.push(Self::start(section, label).await);
        }
        assert!(all.len() >= 12, "found only {} providers in {EXAMPLES}", all.len());
        all
    }

    async fn start(section: &str, label: &str) -> Self {
        let name = section.lines().next().unwrap().to_owned();
        let key = TestKey::rs256("example");
        let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
        let configuration = blocks(section, "toml").remove(0);
        // The tokens are as documented; only the keys come from this test.
        let discovered = |line: &&str| !line.starts_with("discovery_url");
        let lines = configuration.lines().filter(discovered).collect::<Vec<_>>().join("\n");
        let lines = lines.replace("[oidc]", &format!("[oidc]\njwks_url = \"{}/keys\"", issuer.url));
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("issuer-{label}-{name}.toml"));
        fs::write(&file, lines).unwrap();
        let unset = [("APP_OIDC__AUDIENCE", ""), ("APP_OIDC__SERVICE_CLIENTS", ""), ("APP_OIDC__ISSUER", "")];
        let variables = [&[("APP_CONFIG", file.to_str().unwrap())], &unset[..], &UNTHROTTLED].concat();
        let app = SERVICE.start_with(&variables).await;
        app.wait_until_ready().await;
        let read = |block: &String| serde_json::from_str::<Value>(block).expect(block);
        let examples: Vec<Value> = blocks(section, "json").iter().map(read).collect();
        let pairs = examples.chunks(2).map(|pair| {
            let [claims, answer] = pair else { panic!("{name}: a token has no response") };
            (claims.clone(), answer.clone())
        });
        Self { examples: pairs.collect(), name, configuration, _issuer: issuer, key, app }
    }

    /// Calls the service with a token of these claims.
    async fn get(&self, claims: &Value, path: &str) -> Reply {
        let typ = match self.setting("token_type") {
            Some("none") => None,
            Some(typ) => Some(typ),
            None if is_id_token(claims) => Some("JWT"),
            None => Some("at+jwt"),
        };
        let mut header = json!({ "alg": "RS256", "kid": "example" });
        if let Some(typ) = typ {
            header["typ"] = json!(typ);
        }
        let now = self.app.clock.timestamp();
        let mut claims = claims.clone();
        (claims["iat"], claims["exp"]) = (json!(now), json!(now + 300));
        self.app.bearer(self.key.sign_text(&header.to_string(), &claims.to_string())).get(path).await
    }

    /// The value of a setting.
    fn setting(&self, name: &str) -> Option<&str> {
        let line = self.configuration.lines().find(|line| line.starts_with(&format!("{name} = ")))?;
        line.split('"').nth(1)
    }

    /// The claims that `service_claims` and `user_claims` name.
    fn marked_claims(&self) -> BTreeSet<&str> {
        let marks = ["service_claims", "user_claims"].map(|name| self.setting(name));
        marks
            .into_iter()
            .flatten()
            .flat_map(|marks| marks.split(", "))
            .map(|mark| mark.split_once('=').unwrap().0)
            .collect()
    }
}

/// Whether the claims are those of an ID token (OpenID Connect Core section 2).
fn is_id_token(claims: &Value) -> bool {
    claims.get("nonce").is_some() && claims["typ"] != "Bearer"
}

/// Whether the claims contain a scope or role of this API.
fn has_rights(claims: &Value) -> bool {
    let text = claims.to_string();
    let roles = roles::ALL.map(Role::as_str).map(|role| format!("\"{role}\""));
    scopes::ALL.iter().any(|scope| text.contains(scope.as_str())) || roles.iter().any(|role| text.contains(role))
}

#[tokio::test]
async fn authn_07_the_documented_examples_work_as_they_stand() {
    for provider in Provider::all("as-it-stands").await {
        let name = &provider.name;
        let mut answers = BTreeSet::new();
        for (claims, answer) in &provider.examples {
            let reply = provider.get(claims, "/v1/me").await;
            if let Some(reason) = answer.get("refused").and_then(Value::as_str) {
                assert_eq!(reject_reason(&reply), reason, "{name}: {claims}");
                answers.insert((if is_id_token(claims) { "id_token" } else { reason }, has_rights(claims)));
                continue;
            }
            let mut expected = answer.clone();
            expected["tenantId"] = json!(ACME.id.to_string());
            assert_eq!(reply.ok(200), expected, "{name}");
            // The rights are effective.
            let scopes = answer["scopes"].to_string();
            let path = if scopes.contains("orders:read") { "/v1/orders" } else { "/v1/invoices" };
            provider.get(claims, path).await.ok(200);
            answers.insert((answer["kind"].as_str().unwrap(), true));
        }
        assert!(answers.iter().any(|(kind, _)| *kind == "id_token"), "{name} has no ID token");
        for expected in [("user", true), ("service", true), ("service_client", true), ("service_client", false)] {
            assert!(answers.contains(&expected), "{name} has no example of {expected:?}");
        }
    }
}

/// The value in other spellings and types, as another version of the issuer might write it.
fn variants(value: &str) -> Vec<Value> {
    let texts = ["", " ", "*", "admin", &value.to_uppercase(), &format!(" {value}"), &format!("{value} ")]
        .map(|text| json!(text))
        .to_vec();
    let hidden = [format!("{value}\u{200b}"), format!("\u{feff}{value}"), value.replace('e', "\u{435}")];
    let types = [json!([value]), json!([]), json!({ "a": value }), json!(1), json!(true), Value::Null];
    let nested = [json!([[value]]), json!([value, "x"]), json!([1, value])];
    [texts, hidden.map(Value::from).to_vec(), types.to_vec(), nested.to_vec()].concat()
}

/// The token with the claim set, or without it.
fn with(claims: &Value, name: &str, value: Option<Value>) -> Value {
    let mut claims = claims.clone();
    let members = claims.as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(name.to_owned(), value),
        None => members.remove(name),
    };
    claims
}

#[tokio::test]
async fn authn_07_programs_never_pass_as_users_and_unlisted_ones_are_rejected() {
    for provider in Provider::all("attacks").await {
        let name = &provider.name;
        let listed = provider.setting("service_clients").unwrap();
        let client_claim = provider.setting("client_claim").unwrap_or("client_id");
        let user_claims: BTreeSet<&str> = provider
            .examples
            .iter()
            .filter(|(_, answer)| answer["kind"] == "user")
            .flat_map(|(claims, _)| claims.as_object().unwrap().keys())
            .map(String::as_str)
            .collect();
        let is_program = |answer: &Value| {
            answer["kind"] == "service" || answer["refused"] == "service_client" || answer["refused"] == "caller_kind"
        };
        for (claims, answer) in provider.examples.iter().filter(|(_, answer)| is_program(answer)) {
            let is_listed = answer["kind"] == "service";
            let mut tokens = vec![with(claims, "sub", None), with(claims, "sub", Some(json!(listed)))];
            let mut unmarked = claims.clone();
            for claim in provider.marked_claims() {
                if claim != "sub" {
                    unmarked = with(&unmarked, claim, None);
                }
                let Some(value) = claims.get(claim).and_then(Value::as_str) else { continue };
                tokens.push(with(claims, claim, None));
                tokens.extend(variants(value).into_iter().map(|value| with(claims, claim, Some(value))));
            }
            // A token cannot omit its subject, so a mark on `sub` stays.
            tokens.push(unmarked.clone());
            if claims.get("azp").is_some() {
                // Some issuers name the client in `azp` only, and as the subject.
                tokens.push(with(&unmarked, "sub", Some(claims["azp"].clone())));
            }
            if !is_listed {
                let spellings = variants(listed).into_iter().filter(|value| value.as_str() != Some(listed));
                tokens.extend(spellings.map(|value| with(claims, client_claim, Some(value))));
                tokens.extend(
                    user_claims
                        .iter()
                        .filter(|claim| claims.get(**claim).is_none())
                        .filter(|claim| !provider.marked_claims().contains(**claim))
                        .map(|claim| with(claims, claim, Some(json!("x")))),
                );
            }
            for token in tokens {
                let reply = provider.get(&token, "/v1/me").await;
                if reply.status == 200 {
                    assert!(
                        is_listed && reply.body["kind"] == "service",
                        "{name}: {token} is accepted as {}",
                        reply.body
                    );
                } else {
                    reply.problem(401);
                }
            }
        }
    }
}
