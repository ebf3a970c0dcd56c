//! The examples of docs/issuers.md, as they stand, and attacks on each documented configuration.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};
use service::authz::{matrix::Scope, policy::Role};

use super::issuers::reason;
use crate::support::{ACME, OddIssuer, Reply, TestApp, TestKey, UNTHROTTLED};

const EXAMPLES: &str = "docs/issuers.md";

/// A provider's section: its configuration, running, and its tokens with their answers.
struct Documented {
    name: String,
    configuration: String,
    examples: Vec<(Value, Value)>,
    issuer: OddIssuer,
    key: TestKey,
    app: TestApp,
}

/// The blocks of one language in a section of the examples.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    section.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

impl Documented {
    /// Every provider, each with a service of its own.
    async fn all(use_of_file: &str) -> Vec<Self> {
        let text = fs::read_to_string(EXAMPLES).unwrap();
        let mut all = Vec::new();
        for section in text.split("\n## ").filter(|section| !blocks(section, "json").is_empty()) {
            all.push(Self::start(section, use_of_file).await);
        }
        assert!(all.len() >= 3, "the providers are found");
        all
    }

    async fn start(section: &str, use_of_file: &str) -> Self {
        let name = section.lines().next().unwrap().to_owned();
        let key = TestKey::rs256("example");
        let issuer = OddIssuer::with_keys(&[&key]).await;
        let configuration = blocks(section, "toml").remove(0);
        let documented = configuration.split('"').nth(1).unwrap().to_owned();
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("issuer-{use_of_file}-{name}.toml"));
        fs::write(&file, configuration.replace(&documented, &issuer.url)).unwrap();
        let from_file = [("APP_OIDC__AUDIENCE", ""), ("APP_OIDC__SERVICE_CLIENTS", ""), ("APP_OIDC__ISSUER", "")];
        let variables = [&[("APP_CONFIG", file.to_str().unwrap())], &from_file[..], &UNTHROTTLED].concat();
        let app = TestApp::start_with(&variables).await;
        app.wait_until_ready().await;
        let read = |block: &String| serde_json::from_str::<Value>(block).expect(block);
        let examples: Vec<Value> = blocks(section, "json").iter().map(read).collect();
        let pairs = examples.chunks(2).map(|pair| {
            let [claims, answer] = pair else { panic!("{name}: a token without its answer") };
            assert_eq!(claims["iss"], documented, "{name}");
            (claims.clone(), answer.clone())
        });
        Self { examples: pairs.collect(), name, configuration, issuer, key, app }
    }

    /// What the service answers to a request with a token of these claims.
    async fn get(&self, claims: &Value, path: &str) -> Reply {
        let typ = if self.configuration.contains("token_type = \"JWT\"") { "JWT" } else { "at+jwt" };
        let header = json!({ "alg": "RS256", "typ": typ, "kid": "example" });
        let now = self.app.clock.timestamp();
        let mut claims = claims.clone();
        (claims["iss"], claims["iat"], claims["exp"]) = (json!(self.issuer.url), json!(now), json!(now + 300));
        self.app.bearer(self.key.sign_text(&header.to_string(), &claims.to_string())).get(path).await
    }

    /// The value of a setting.
    fn setting(&self, name: &str) -> Option<&str> {
        let line = self.configuration.lines().find(|line| line.starts_with(&format!("{name} = ")))?;
        line.split('"').nth(1)
    }

    /// The claims that `service_marks` and `user_marks` name.
    fn marked_claims(&self) -> BTreeSet<&str> {
        let marks = ["service_marks", "user_marks"].map(|name| self.setting(name).unwrap());
        marks.iter().flat_map(|marks| marks.split(", ")).map(|mark| mark.split_once('=').unwrap().0).collect()
    }
}

/// Whether the claims name a scope or a role of this API.
fn has_rights(claims: &Value) -> bool {
    let text = claims.to_string();
    let roles = Role::ALL.map(Role::as_str).map(|role| format!("\"{role}\""));
    Scope::ALL.iter().any(|scope| text.contains(scope.as_str())) || roles.iter().any(|role| text.contains(role))
}

#[tokio::test]
async fn authn_07_the_documented_examples_work_as_they_stand() {
    for provider in Documented::all("as-it-stands").await {
        let name = &provider.name;
        let mut answers = BTreeSet::new();
        for (claims, answer) in &provider.examples {
            let reply = provider.get(claims, "/v1/me").await;
            if let Some(refused) = answer.get("refused") {
                assert_eq!(reason(&reply), refused.as_str().unwrap(), "{name}: {claims}");
                answers.insert((refused.as_str().unwrap(), has_rights(claims)));
                continue;
            }
            let mut expected = answer.clone();
            expected["tenantId"] = json!(ACME.id.to_string());
            assert_eq!(reply.ok(200), expected, "{name}");
            // The rights are worth something.
            let scopes = answer["scopes"].to_string();
            let path = if scopes.contains("orders:read") { "/v1/orders" } else { "/v1/invoices" };
            provider.get(claims, path).await.ok(200);
            answers.insert((answer["kind"].as_str().unwrap(), true));
        }
        for wanted in [("user", true), ("service", true), ("service_client", true), ("service_client", false)] {
            assert!(answers.contains(&wanted), "{name} has no example of {wanted:?}");
        }
    }
}

/// A value in other words and other types: how an issuer might write a claim some day.
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
async fn authn_07_programs_are_never_users_and_unlisted_ones_never_accepted() {
    for provider in Documented::all("attacks").await {
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
        for (claims, answer) in provider.examples.iter().filter(|(_, answer)| answer["kind"] != "user") {
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
            // Where the mark is the subject, it cannot be left out.
            tokens.push(unmarked.clone());
            if claims.get("azp").is_some() {
                // An issuer that calls the client `azp` only, and names it as the subject too.
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
                    assert!(is_listed && reply.body["kind"] == "service", "{name}: {token} is {}", reply.body);
                } else {
                    reply.problem(401);
                }
            }
        }
    }
}
