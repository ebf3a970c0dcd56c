//! The service as it ships ([`Production`]): a process with the production profile (SUPPLY-04).
//!
//! Its settings are those of the shipped example, with the addresses and secrets of this test: TLS,
//! an https issuer, PostgreSQL by `verify-full`, Redis by TLS, an internal listener, and a file for
//! each secret. Limits and quotas are the shipped ones.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use palisade::{
    dev::{database::Urls, people::Person},
    model::Clock,
};
use rcgen::SanType;
use reqwest::Identity;
use serde_json::{Value, json};

use crate::{
    Actor, Authority, MisbehavingIssuer, Redis, RestartablePostgres, ServiceProcess, TestKey, TestService, TlsFront,
    eventually,
    mtls::{PROMETHEUS, dns},
    scratch_folder,
};

/// The process, and everything that it depends on.
pub struct Production {
    /// The process.
    pub process: ServiceProcess,
    /// Signs every certificate.
    pub authority: Authority,
    /// The environment of the process.
    pub variables: BTreeMap<String, String>,
    service: &'static TestService,
    issuer: MisbehavingIssuer,
    key: TestKey,
    postgres: RestartablePostgres,
    files: Files,
    _front: TlsFront,
    _redis: Option<Redis>,
}

/// Files of mode 400 in a folder of their own, deleted on drop.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let folder = scratch_folder().join(format!("production-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// Writes the file; returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Writes a certificate and its key; returns both paths.
    fn write_pair(&self, name: &str, (certificate, key): (String, String)) -> [String; 2] {
        [self.write(&format!("{name}.pem"), &certificate), self.write(&format!("{name}.key"), &key)]
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Production {
    /// Starts the binary with the settings of this example (`deploy/example.env`), and waits until
    /// it is ready. Without Redis, which the run announces, quotas are not shared.
    pub async fn start(service: &'static TestService, example: &str) -> Self {
        let authority = Authority::new();
        let sign = || authority.sign_for([dns("localhost"), SanType::IpAddress(Ipv4Addr::LOCALHOST.into())]);
        let files = Files::new();
        let root = files.write("root.pem", &authority.root);
        let mut postgres = RestartablePostgres::start(service).await;
        postgres.require_tls(sign(), root.as_ref()).await;
        let redis_password = random_hex();
        let redis = start_redis(&authority, sign(), &redis_password).await;
        let key = TestKey::es256("production");
        let mut issuer = MisbehavingIssuer::with_keys(service, &[&key]).await;
        let front = TlsFront::start(issuer.url.trim_start_matches("http://").parse().unwrap(), sign()).await;
        issuer.url = format!("https://{}", front.address);
        issuer.set_metadata("issuer", issuer.url.as_str());
        issuer.set_metadata("jwks_uri", format!("{}/keys", issuer.url));

        let mut secrets = postgres.database.variables();
        for secret in ["APP_SECRETS__MAC_KEY", "APP_SECRETS__PEPPER"] {
            secrets.insert(secret.to_owned(), STANDARD.encode(palisade::crypto::random::<32>().unwrap()));
        }
        let [certificate, tls_key] = files.write_pair("public", sign());
        let [internal_certificate, internal_key] = files.write_pair("internal", sign());
        let mut values = vec![
            ("APP_OIDC__ISSUER", issuer.url.clone()),
            ("APP_HTTP__LISTEN", "0.0.0.0:0".to_owned()),
            ("APP_TLS__CERTIFICATE_PATH", certificate),
            ("APP_TLS__KEY_PATH", tls_key),
        ];
        let mut further = vec![
            ("APP_OIDC__CA_PATH", root.clone()),
            ("APP_OUTBOUND__ALLOWED_NETWORKS", "127.0.0.0/8".to_owned()),
            ("APP_INTERNAL__LISTEN", "127.0.0.1:0".to_owned()),
            ("APP_INTERNAL__CERTIFICATE_PATH", internal_certificate),
            ("APP_INTERNAL__KEY_PATH", internal_key),
            ("APP_INTERNAL__CLIENT_CA_PATH", root.clone()),
            ("APP_INTERNAL__SERVICES__PROMETHEUS__CERTIFICATE_NAME", format!("dns:{PROMETHEUS}")),
            ("APP_INTERNAL__SERVICES__PROMETHEUS__RIGHTS", "metrics".to_owned()),
        ];
        if let Some(redis) = &redis {
            let url = format!("rediss://:{redis_password}@127.0.0.1:{}", redis.port);
            secrets.insert("APP_QUOTA__REDIS_URL".to_owned(), url);
            further.push(("APP_QUOTA__REDIS_CA_PATH", root));
        }
        let mut variables = settings_of(example, &mut values, secrets, &files);
        variables.extend(further.into_iter().map(|(name, value)| (name.to_owned(), value)));

        let process = ServiceProcess::start(service, &variables).await;
        let production =
            Self { process, authority, variables, service, issuer, key, postgres, files, _front: front, _redis: redis };
        let probe = production.actor(None);
        eventually("ready", async || probe.get("/health/ready").await.status == 200).await;
        production
    }

    /// Connection URLs of its database, with `verify-full`.
    pub fn database(&self) -> &Urls {
        &self.postgres.database
    }

    /// The address of the public listener.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.process.address.port()).into()
    }

    /// A caller with this token, over TLS.
    pub fn actor(&self, token: Option<String>) -> Actor {
        let client = self.authority.client(self.address()).build().unwrap();
        Actor::over_tls(client, self.address().port(), token)
    }

    /// The service with the right to read metrics, at the internal listener.
    pub fn prometheus(&self) -> Actor {
        let listening = self.process.log_lines.iter().find(|line| line["message"] == "listening").unwrap();
        let address: SocketAddr = listening["internal"].as_str().unwrap().parse().unwrap();
        let (certificate, key) = self.authority.sign_for([dns(PROMETHEUS)]);
        let identity = Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap();
        let client = self.authority.client(address).identity(identity).build().unwrap();
        Actor::over_tls(client, address.port(), None)
    }

    /// A token of this person, whose claims the test may change.
    pub fn token(&self, person: &Person, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.issuer.claims(Clock::system().timestamp());
        for (name, value) in [
            ("aud", json!(self.variables["APP_OIDC__AUDIENCE"])),
            ("sub", json!(person.subject)),
            ("tenant_id", json!(person.tenant.to_string())),
            ("roles", json!([person.role.as_str()])),
        ] {
            claims[name] = value;
        }
        change(&mut claims);
        let header = json!({ "alg": self.key.alg, "typ": "at+jwt", "kid": self.key.id });
        self.key.sign_text(&header.to_string(), &claims.to_string())
    }

    /// A caller with a valid token of this person.
    pub fn user(&self, person: &Person) -> Actor {
        self.actor(Some(self.token(person, |_| {})))
    }

    /// Writes a file for a secret or a certificate; returns its path.
    pub fn write_file(&self, name: &str, text: &str) -> String {
        self.files.write(name, text)
    }

    /// Starts a second process with these variables changed, which must end with an error; returns
    /// the error. An empty value removes the variable.
    pub async fn refusal(&self, changed: &[(&str, &str)]) -> String {
        let mut variables = self.variables.clone();
        variables.extend(changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        variables.retain(|_, value| !value.is_empty());
        let mut command = self.service.binary();
        let mut child = command.arg("serve").envs(variables).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if started.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
                panic!("{changed:?}: the service started: {}", error_of(child));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        error_of(child)
    }
}

fn error_of(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// The settings of the example. Those of this test replace its values, and make commented ones
/// active; secrets are written to files.
fn settings_of(
    example: &str,
    values: &mut Vec<(&str, String)>,
    mut secrets: BTreeMap<String, String>,
    files: &Files,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for line in example.lines() {
        let Some((name, shown)) = line.trim_start_matches('#').split_once('=') else { continue };
        let is_active = !line.starts_with('#');
        if !name.starts_with("APP_") {
            assert!(!is_active, "{line}: not a setting");
        } else if let Some(secret) = name.strip_suffix("_FILE") {
            match secrets.remove(secret) {
                Some(text) => drop(variables.insert(name.to_owned(), files.write(secret, &text))),
                None => assert!(!is_active, "{name}: this test has no value for it; add one to `Production::start`"),
            }
        } else if let Some(at) = values.iter().position(|(replaced, _)| *replaced == name) {
            variables.insert(name.to_owned(), values.swap_remove(at).1);
        } else if is_active {
            variables.insert(name.to_owned(), shown.to_owned());
        }
    }
    assert!(values.is_empty() && secrets.is_empty(), "not in the example: {values:?}, {:?}", secrets.keys());
    variables
}

async fn start_redis(authority: &Authority, (certificate, key): (String, String), password: &str) -> Option<Redis> {
    let files = [("certificate.pem", certificate), ("key.pem", key), ("root.pem", authority.root.clone())];
    let options = format!(
        "--port 0 --tls-port {{port}} --tls-auth-clients no --maxmemory-policy noeviction --requirepass {password} \
         --tls-cert-file {{files}}/certificate.pem --tls-key-file {{files}}/key.pem \
         --tls-ca-cert-file {{files}}/root.pem"
    );
    Redis::start_with(&files, &options.split(' ').collect::<Vec<_>>()).await
}

fn random_hex() -> String {
    palisade::crypto::hex(&palisade::crypto::random::<16>().unwrap())
}
