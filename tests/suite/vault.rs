//! Master keys that stay in a vault (CRYPTO-04, CRYPTO-05), by a server that speaks the API of Vault's Transit engine.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::json;
use service::{
    app,
    authz::{matrix::Scope, policy::Role},
    domain::Clock,
    ops::Keys,
    settings::Settings,
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    rotation::keys,
    support::{
        ACME, Authority, FiledService, GLOBEX, PemFiles, TestApp, UNTHROTTLED, Vault, eventually, query, superuser,
        vault::TOKEN,
    },
};

/// Where a service finds this vault. What the demo data is wrapped by, it opens as well.
pub fn beside(vault: &str) -> Vec<(&str, &str)> {
    let own = [("APP_KEYS__PROVIDER", "vault"), ("APP_KEYS__VAULT__URL", vault), ("APP_KEYS__VAULT__TOKEN", TOKEN)];
    UNTHROTTLED.into_iter().chain(own).collect()
}

/// The same, where nothing is wrapped by anything else.
pub fn alone(vault: &str) -> Vec<(&str, &str)> {
    [&beside(vault)[..], &[("APP_KEYS__MASTER", "")]].concat()
}

/// An app all of whose data keys are wrapped by the vault.
pub async fn app_of(vault: &Vault) -> TestApp {
    let url = vault.url();
    let before = TestApp::start_with(&beside(&url)).await;
    let told = keys(&before, Keys::Rewrap, &beside(&url)).await.unwrap();
    assert_eq!(told, [format!("2 data keys are now wrapped by {}", version(1))]);
    let patient = [&alone(&url)[..], &[("APP_KEYS__VAULT__TIMEOUT_MS", "4900")]].concat();
    TestApp::start_on(before.database, &patient).await
}

pub fn version(version: u32) -> String {
    format!("vault:transit/{}:v{version}", env!("CARGO_PKG_NAME"))
}

pub async fn wrapped_by(app: &TestApp) -> Vec<String> {
    query(&app.database.owner, "select distinct wrapped_by from data_keys order by 1").await
}

/// Why a service does not start.
pub async fn refusal(app: &TestApp, variables: &[(&str, &str)]) -> String {
    let mut all = TestApp::variables(&app.database, app.issuer.url());
    all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    all.retain(|_, value| !value.is_empty());
    let started = Box::pin(app::start(Settings::from_variables(all).unwrap(), Clock::system())).await;
    started.expect_err("it does not start").to_string()
}

#[tokio::test]
async fn crypto_04_data_keys_are_wrapped_by_a_vault_that_never_gives_its_key_away() {
    let vault = Vault::start().await;
    let app = app_of(&vault).await;
    let admin = app.user(Role::Admin);
    vault.take_asked();
    let customer = json!({ "name": "New", "email": "new@example.com", "taxId": "DE-1" });
    let created = admin.post("/v1/customers", &customer).await.ok(201);
    let path = format!("/v1/customers/{}", created["id"].as_str().unwrap());
    assert_eq!(admin.get(&path).await.ok(200)["email"], "new@example.com");
    assert!(admin.get("/v1/customers?limit=100").await.ok(200)["items"].as_array().unwrap().len() > 3);
    assert_eq!(wrapped_by(&app).await, [version(1)]);
    // Asked once, and remembered.
    assert_eq!(vault.take_asked(), ["decrypt "]);
    // A data key is its tenant's, wherever somebody puts it.
    let exchange = "update data_keys k set wrapped = o.wrapped from data_keys o where o.of_tenant <> k.of_tenant";
    sqlx::raw_sql(exchange).execute(&mut superuser(&app.database).await).await.unwrap();
    let told = refusal(&app, &alone(&vault.url())).await;
    assert!(told.contains("opens no data key") && told.contains("message authentication failed"), "{told}");
    // Nor does one open that is said to be wrapped by another version: who forbids the version in use would lose it.
    let renamed = format!("update data_keys set wrapped_by = '{}'", version(2));
    sqlx::raw_sql(sqlx::AssertSqlSafe(renamed)).execute(&mut superuser(&app.database).await).await.unwrap();
    let told = refusal(&app, &alone(&vault.url())).await;
    assert!(told.contains("does not open with master key"), "{told}");
    // For each of the two, and no more once the name alone says no.
    assert_eq!(vault.take_asked(), ["decrypt ", "decrypt "], "it was asked for the second");
}

#[tokio::test]
async fn crypto_04_a_connection_that_the_vault_gives_up_costs_nothing() {
    let vault = Vault::start().await;
    let app = app_of(&vault).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, to) = (format!("http://{}", listener.local_addr().unwrap()), vault.address);
    tokio::spawn(async move {
        // The first is taken, and asked, and closed without an answer.
        let (mut first, _) = listener.accept().await?;
        first.read_exact(&mut [0; 1]).await?;
        drop(first);
        loop {
            let (mut socket, _) = listener.accept().await?;
            let mut inside = TcpStream::connect(to).await?;
            tokio::io::copy_bidirectional(&mut socket, &mut inside).await?;
        }
        #[expect(unreachable_code, reason = "it says of which type the errors are")]
        std::io::Result::Ok(())
    });
    TestApp::start_on(app.database.clone(), &alone(&url)).await.user(Role::Admin).get("/v1/customers").await.ok(200);
}

/// In CI, as deploy/compose.yaml sets it up; `TEST_VAULT_URL` and `TEST_VAULT_TOKEN` say where.
#[tokio::test]
async fn crypto_04_interop_a_vault_that_nobody_here_wrote_does_the_same() {
    let Ok(url) = std::env::var("TEST_VAULT_URL") else { return };
    let token = std::env::var("TEST_VAULT_TOKEN").expect("TEST_VAULT_TOKEN beside TEST_VAULT_URL");
    let with = [
        ("APP_KEYS__PROVIDER", "vault"),
        ("APP_KEYS__VAULT__URL", &*url),
        ("APP_KEYS__VAULT__KEY", "orders"),
        ("APP_KEYS__VAULT__TOKEN", &*token),
    ];
    let alone = [&with[..], &[("APP_KEYS__MASTER", "")]].concat();
    let app = TestApp::start_with(&with).await;
    keys(&app, Keys::Rewrap, &with).await.unwrap();
    assert!(wrapped_by(&app).await.iter().all(|name| name.starts_with("vault:transit/orders:v")));
    let replica = TestApp::start_on(app.database.clone(), &alone).await;
    replica.user(Role::Admin).get("/v1/customers").await.ok(200);
    let exchange = "update data_keys k set wrapped = o.wrapped from data_keys o where o.of_tenant <> k.of_tenant";
    sqlx::raw_sql(exchange).execute(&mut superuser(&app.database).await).await.unwrap();
    let told = refusal(&app, &alone).await;
    assert!(told.contains("opens no data key"), "{told}");
}

#[tokio::test]
async fn crypto_04_a_vault_that_is_away_costs_what_is_not_remembered_and_comes_back() {
    let vault = Vault::start().await;
    let app = app_of(&vault).await;
    let acme = app.user(Role::Admin);
    let globex = app.user_of(&GLOBEX, Role::Admin, &Scope::ALL);
    acme.get("/v1/customers").await.ok(200);
    vault.seal(true);
    acme.get("/v1/customers").await.ok(200);
    globex.get("/v1/orders").await.ok(200);
    let reply = globex.get("/v1/customers").await;
    assert_eq!(reply.problem(503), "unavailable");
    assert!(reply.events().iter().all(|event| event["event"] != "sealed_data_invalid"), "{reply:#?}");
    let told = refusal(&app, &alone(&vault.url())).await;
    assert!(told.contains("status 503 Vault is sealed"), "{told}");
    let status = keys(&app, Keys::Status, &alone(&vault.url())).await.unwrap_err();
    assert!(status.contains("Vault is sealed"), "{status}");
    vault.seal(false);
    eventually("it is asked again", async || globex.get("/v1/customers").await.status == 200).await;
}

#[tokio::test]
async fn crypto_04_a_data_key_is_asked_for_once_by_all_who_wait_and_nobody_else_waits() {
    let vault = Vault::start().await;
    let app = app_of(&vault).await;
    let globex = app.user_of(&GLOBEX, Role::Admin, &Scope::ALL);
    vault.silence(true);
    vault.take_asked();
    let read = || async { globex.get("/v1/customers").await.ok(200) };
    let customer = json!({ "name": "New", "email": "new@example.com" });
    let write = || async { globex.post("/v1/customers", &customer).await.ok(201) };
    let ids = "select id::text from customers where tenant_id = (select tenant_id from customers where tenant_id <> $1 limit 1)";
    let ids = sqlx::query_scalar::<_, String>(ids).bind(ACME.id.uuid());
    let ids = ids.fetch_all(&mut superuser(&app.database).await).await.unwrap();
    let change = async |id: &String| {
        let patch = globex.request(Method::PATCH, &format!("/v1/customers/{id}"));
        globex.send(patch.json(&json!({ "phone": "+441632960001" }))).await.ok(200)
    };
    let answer = async {
        eventually("the vault is asked", async || vault.asked() > 0).await;
        let again = eventually("it is asked again", async || vault.asked() > 1);
        assert!(tokio::time::timeout(Duration::from_millis(500), again).await.is_err(), "{:?}", vault.take_asked());
        // There are ten connections of each login, and none of them waits for the vault.
        globex.get("/v1/orders").await.ok(200);
        globex.get("/v1/orders?limit=1").await.ok(200);
        let product = json!({ "name": "Thing", "price": { "amount": 1, "currency": "EUR" } });
        let put = globex.request(Method::PUT, "/v1/products/THING-1").json(&product);
        assert!(globex.send(put).await.status.is_success());
        vault.silence(false);
    };
    let reads = futures_util::future::join_all((0..12).map(|_| read()));
    let writes = futures_util::future::join_all((0..12).map(|_| write()));
    // More than there are connections of the writer's login.
    let changes = futures_util::future::join_all(ids.iter().cycle().take(12).map(change));
    tokio::join!(reads, writes, changes, answer);
    assert_eq!(vault.take_asked(), ["decrypt "]);
}

#[tokio::test]
async fn crypto_04_a_vault_that_is_silent_or_talks_nonsense_is_waited_for_no_longer_than_set() {
    let vault = Vault::start().await;
    let app = app_of(&vault).await;
    let url = vault.url();
    vault.silence(true);
    let patient = [&alone(&url)[..], &[("APP_KEYS__VAULT__TIMEOUT_MS", "50")]].concat();
    vault.take_asked();
    let asked = Instant::now();
    let told = refusal(&app, &patient).await;
    assert!(told.contains("no answer in time"), "{told}");
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    // Whoever was silent once is not asked the same at once.
    assert!(vault.asked() <= 1, "{:?}", vault.take_asked());
    vault.silence(false);
    for answer in [json!({}), json!({ "data": { "plaintext": 1 } }), json!({ "data": { "plaintext": "AAAA" } })] {
        vault.say(answer.clone());
        let told = refusal(&app, &alone(&url)).await;
        assert!(told.contains("another form") || told.contains("does not open"), "{answer}: {told}");
    }
    // What it could never say is not read to its end.
    let padding = |length: usize| {
        let answer =
            |more: &str| json!({ "data": { "ciphertext": "vault:v1:AAAA", "plaintext": "AAAA" }, "more": more });
        answer(&"x".repeat(length - answer("").to_string().len()))
    };
    for (length, says) in [(65_536, "does not open"), (65_537, "another form")] {
        vault.say(padding(length));
        let told = refusal(&app, &alone(&url)).await;
        assert!(told.contains(says), "{length}: {told}");
    }
    // Its token goes to nobody else.
    let other = Vault::start().await;
    vault.redirect_to(&format!("{}/v1/transit/decrypt/{}", other.url(), env!("CARGO_PKG_NAME")));
    vault.seal(false);
    let told = refusal(&app, &alone(&url)).await;
    assert!(told.contains("status 307"), "{told}");
    assert_eq!(other.take_asked(), Vec::<String>::new());
}

#[tokio::test]
async fn secret_04_the_token_of_the_vault_changes_while_the_service_runs() {
    let vault = Vault::start().await;
    let url = vault.url();
    let before = app_of(&vault).await;
    let own = alone(&url);
    let mut service = FiledService::start(before.database.clone(), "3600000", &own).await;
    vault.set_token("hvs.another");
    service.files.write("KEYS__VAULT__TOKEN", "hvs.wrong");
    service.serving.hang_up();
    let reason = service.event("secret_not_renewed", "KEYS__VAULT__TOKEN").await;
    assert!(reason.contains("status 403 permission denied"), "{reason}");
    // Nobody looks at files but who was refused.
    service.files.write("KEYS__VAULT__TOKEN", "hvs.another");
    let admin = service.admin();
    eventually("the new token is used", async || admin.get("/v1/customers").await.status == 200).await;
    service.event("secret_renewed", "KEYS__VAULT__TOKEN").await;
    // A vault that only opens what is there still is tried out as well.
    let own =
        [&beside(&url)[..], &[("APP_KEYS__PROVIDER", "keyset"), ("APP_KEYS__VAULT__TOKEN", "hvs.another")]].concat();
    let mut service = FiledService::start(before.database, "100", &own).await;
    service.files.write("KEYS__VAULT__TOKEN", "hvs.wrong");
    let reason = service.event("secret_not_renewed", "KEYS__VAULT__TOKEN").await;
    assert!(reason.contains("status 403 permission denied"), "{reason}");
}

/// TLS in front of the vault.
async fn by_tls(vault: &Vault, authority: &Authority) -> String {
    let (certificate, key) = authority.sign();
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap();
    let (acceptor, to) = (TlsAcceptor::from(Arc::new(config)), vault.address);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut inside = TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut acceptor.accept(socket).await?, &mut inside).await
            });
        }
    });
    format!("https://localhost:{}", address.port())
}

#[tokio::test]
async fn crypto_04_the_vault_is_whom_its_certificate_names() {
    let (vault, authority) = (Vault::start().await, Authority::new());
    let url = by_tls(&vault, &authority).await;
    let file = |root: String| PemFiles::new((root, String::new()));
    let (mine, others) = (file(authority.root.clone()), file(Authority::new().root));
    let with = |files: &PemFiles| files.certificate().to_str().unwrap().to_owned();
    let (mine, others) = (with(&mine), with(&others));
    let own =
        [&beside(&url)[..], &[("APP_KEYS__VAULT__CA_PATH", &mine), ("APP_KEYS__VAULT__NAMESPACE", "team")]].concat();
    let app = TestApp::start_with(&own).await;
    assert_eq!(vault.take_asked(), ["encrypt team", "decrypt team", "decrypt team"]);
    let told = refusal(&app, &[&beside(&url)[..], &[("APP_KEYS__VAULT__CA_PATH", &others)]].concat()).await;
    assert!(told.contains("no connection"), "{told}");
    let told = refusal(&app, &[&beside(&url)[..], &[("APP_KEYS__VAULT__CA_PATH", "/nowhere")]].concat()).await;
    assert!(told.contains("/nowhere cannot be read"), "{told}");
    assert_eq!(vault.take_asked(), Vec::<String>::new());
}
