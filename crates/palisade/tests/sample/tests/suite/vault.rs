//! Master keys in a vault (CRYPTO-04) and reload of its token (SECRET-04), with a stand-in for
//! Vault's Transit engine.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;
use palisade::ops::Keys;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sample::access::{roles, scopes};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    ACME, Authority, FileSecretsService, GLOBEX, PemFiles, SERVICE, Vault, eventually, id, note_body, run_keys,
    start_error, start_with_vault, superuser, vault_and_keyset, vault_key, vault_only, wrapping_keys,
};

/// Its operation reads the database and opens no sealed field.
const ITEM: &str = "/v1/items/PAPER-A4";

fn note_with_email() -> Value {
    let mut note = note_body("PAPER-A4", 1);
    note["email"] = json!("new@example.com");
    note
}

#[tokio::test]
async fn crypto_04_vault_wraps_data_keys_and_binds_them_to_their_tenant() {
    let vault = Vault::start().await;
    let app = start_with_vault(&vault).await;
    let admin = app.user(roles::ADMIN);
    vault.take_requests();
    let created = admin.post("/v1/notes", &note_with_email()).await.ok(201);
    let path = format!("/v1/notes/{}", id(&created));
    assert_eq!(admin.get(&path).await.ok(200)["email"], "new@example.com");
    assert!(admin.get("/v1/notes?limit=100").await.ok(200)["items"].as_array().unwrap().len() > 3);
    assert_eq!(wrapping_keys(&app).await, [vault_key(1)]);
    // The data key was unwrapped once and is cached.
    assert_eq!(vault.take_requests(), ["decrypt "]);
    // A data key moved to another tenant does not unwrap.
    let exchange = "update palisade.data_keys k set wrapped = o.wrapped from palisade.data_keys o
                    where o.of_tenant <> k.of_tenant";
    sqlx::raw_sql(exchange).execute(&mut superuser(&app.database).await).await.unwrap();
    let error = start_error(&app, &vault_only(&vault.url())).await;
    assert!(error.contains("cannot decrypt a data key") && error.contains("message authentication failed"), "{error}");
    // A wrong name of the wrapping version is rejected: an operator who trusts the names could
    // forbid the version that is in use, and lose the data key.
    let renamed = format!("update palisade.data_keys set wrapped_by = '{}'", vault_key(2));
    sqlx::raw_sql(sqlx::AssertSqlSafe(renamed)).execute(&mut superuser(&app.database).await).await.unwrap();
    let error = start_error(&app, &vault_only(&vault.url())).await;
    assert!(error.contains("cannot be unwrapped with master key"), "{error}");
    // One request for each moved data key, and none where the name alone is wrong.
    assert_eq!(vault.take_requests(), ["decrypt ", "decrypt "]);
}

#[tokio::test]
async fn crypto_04_closed_vault_connections_are_retried() {
    let vault = Vault::start().await;
    let app = start_with_vault(&vault).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let vault_address = vault.address;
    tokio::spawn(async move {
        // Accepts the first connection and its request, then closes it without a response.
        let (mut first, _) = listener.accept().await?;
        first.read_exact(&mut [0; 1]).await?;
        drop(first);
        loop {
            let (mut socket, _) = listener.accept().await?;
            let mut vault = TcpStream::connect(vault_address).await?;
            tokio::io::copy_bidirectional(&mut socket, &mut vault).await?;
        }
        #[expect(unreachable_code, reason = "states the type of the errors")]
        std::io::Result::Ok(())
    });
    SERVICE.start_on(app.database.clone(), &vault_only(&url)).await.user(roles::ADMIN).get("/v1/notes").await.ok(200);
}

#[tokio::test]
async fn crypto_04_vault_outage_affects_uncached_data_keys_only() {
    let vault = Vault::start().await;
    let app = start_with_vault(&vault).await;
    let acme = app.user(roles::ADMIN);
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    acme.get("/v1/notes").await.ok(200);
    vault.seal(true);
    acme.get("/v1/notes").await.ok(200);
    globex.get(ITEM).await.ok(200);
    let reply = globex.get("/v1/notes").await;
    assert_eq!(reply.problem(503), "unavailable");
    assert!(reply.events().iter().all(|event| event["event"] != "sealed_data_invalid"), "{reply:#?}");
    let error = start_error(&app, &vault_only(&vault.url())).await;
    assert!(error.contains("status 503 Vault is sealed"), "{error}");
    let status = run_keys(&app, Keys::Status, &vault_only(&vault.url())).await.unwrap_err();
    assert!(status.contains("Vault is sealed"), "{status}");
    vault.seal(false);
    eventually("notes are served again", async || globex.get("/v1/notes").await.status == 200).await;
}

#[tokio::test]
async fn crypto_04_concurrent_requests_share_one_unwrap_and_hold_no_connection() {
    let vault = Vault::start().await;
    let app = start_with_vault(&vault).await;
    let globex = app.user_of(&GLOBEX, roles::ADMIN, &scopes::ALL);
    vault.silence(true);
    vault.take_requests();
    let read = || async { globex.get("/v1/notes").await.ok(200) };
    let note = note_with_email();
    let write = || async { globex.post("/v1/notes", &note).await.ok(201) };
    let ids = "select id::text from notes
               where tenant_id = (select tenant_id from notes where tenant_id <> $1 limit 1)";
    let ids = sqlx::query_scalar::<_, String>(ids).bind(ACME.id.uuid());
    let ids = ids.fetch_all(&mut superuser(&app.database).await).await.unwrap();
    let [to_archive, to_change @ ..] = &ids[..] else { panic!("no note") };
    let change = async |id: &String| {
        let patch = globex.request(Method::PATCH, &format!("/v1/notes/{id}"));
        globex.send(patch.json(&json!({ "phone": "+441632960001" }))).await.ok(200)
    };
    let unblock = async {
        eventually("the vault is asked", async || vault.request_count() > 0).await;
        let second = eventually("the vault is asked again", async || vault.request_count() > 1);
        assert!(tokio::time::timeout(Duration::from_millis(500), second).await.is_err(), "{:?}", vault.take_requests());
        // No database connection waits for the vault, so other requests are served.
        globex.get(ITEM).await.ok(200);
        globex.get(ITEM).await.ok(200);
        let archive = globex.request(Method::POST, &format!("/v1/notes/{to_archive}/archive"));
        globex.send(archive.header("idempotency-key", "vault")).await.ok(201);
        vault.silence(false);
    };
    let reads = futures_util::future::join_all((0..12).map(|_| read()));
    let writes = futures_util::future::join_all((0..12).map(|_| write()));
    // More than the writer has connections.
    let changes = futures_util::future::join_all(to_change.iter().cycle().take(12).map(change));
    tokio::join!(reads, writes, changes, unblock);
    assert_eq!(vault.take_requests(), ["decrypt "]);
}

#[tokio::test]
async fn crypto_04_vault_timeouts_and_invalid_responses_are_rejected() {
    let vault = Vault::start().await;
    let app = start_with_vault(&vault).await;
    let url = vault.url();
    vault.silence(true);
    let short_timeout = [&vault_only(&url)[..], &[("APP_KEYS__VAULT__TIMEOUT_MS", "50")]].concat();
    vault.take_requests();
    let started = Instant::now();
    let error = start_error(&app, &short_timeout).await;
    assert!(error.contains("timed out"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // After a timeout the service does not ask the same again at once.
    assert!(vault.request_count() <= 1, "{:?}", vault.take_requests());
    vault.silence(false);
    for answer in [json!({}), json!({ "data": { "plaintext": 1 } }), json!({ "data": { "plaintext": "AAAA" } })] {
        vault.respond_with(answer.clone());
        let error = start_error(&app, &vault_only(&url)).await;
        assert!(error.contains("not as expected") || error.contains("cannot be unwrapped"), "{answer}: {error}");
    }
    // A response longer than any valid one (64 KiB) is not read to its end.
    let padding = |length: usize| {
        let answer =
            |more: &str| json!({ "data": { "ciphertext": "vault:v1:AAAA", "plaintext": "AAAA" }, "more": more });
        answer(&"x".repeat(length - answer("").to_string().len()))
    };
    for (length, message) in [(65_536, "cannot be unwrapped"), (65_537, "not as expected")] {
        vault.respond_with(padding(length));
        let error = start_error(&app, &vault_only(&url)).await;
        assert!(error.contains(message), "{length}: {error}");
    }
    // Redirects are not followed: the token would reach another server.
    let other = Vault::start().await;
    vault.redirect_to(&format!("{}/v1/transit/decrypt/{}", other.url(), env!("CARGO_PKG_NAME")));
    vault.seal(false);
    let error = start_error(&app, &vault_only(&url)).await;
    assert!(error.contains("status 307"), "{error}");
    assert_eq!(other.take_requests(), Vec::<String>::new());
}

#[tokio::test]
async fn secret_04_vault_token_reloads_without_a_restart() {
    let vault = Vault::start().await;
    let url = vault.url();
    let before = start_with_vault(&vault).await;
    let mut service = FileSecretsService::start(before.database.clone(), "3600000", &vault_only(&url)).await;
    vault.set_token("hvs.another");
    service.files.write("KEYS__VAULT__TOKEN", "hvs.wrong");
    service.process.send_sighup();
    let reason = service.wait_for_event("secret_not_renewed", "KEYS__VAULT__TOKEN").await;
    assert!(reason.contains("status 403 permission denied"), "{reason}");
    // The reload interval is an hour: a rejected token triggers the reload.
    service.files.write("KEYS__VAULT__TOKEN", "hvs.another");
    let admin = service.admin();
    eventually("the new token is used", async || admin.get("/v1/notes").await.status == 200).await;
    service.wait_for_event("secret_renewed", "KEYS__VAULT__TOKEN").await;
    // The token is also tested if a keyset wraps new data keys and the vault only unwraps old ones.
    let keyset_first = [("APP_KEYS__PROVIDER", "keyset"), ("APP_KEYS__VAULT__TOKEN", "hvs.another")];
    let settings = [&vault_and_keyset(&url)[..], &keyset_first].concat();
    let mut service = FileSecretsService::start(before.database, "100", &settings).await;
    service.files.write("KEYS__VAULT__TOKEN", "hvs.wrong");
    let reason = service.wait_for_event("secret_not_renewed", "KEYS__VAULT__TOKEN").await;
    assert!(reason.contains("status 403 permission denied"), "{reason}");
}

/// Starts a proxy that terminates TLS in front of the vault; returns its URL.
async fn start_tls_proxy(vault: &Vault, authority: &Authority) -> String {
    let (certificate, key) = authority.sign();
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let vault_address = vault.address;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut vault = TcpStream::connect(vault_address).await?;
                tokio::io::copy_bidirectional(&mut acceptor.accept(socket).await?, &mut vault).await
            });
        }
    });
    format!("https://localhost:{}", address.port())
}

#[tokio::test]
async fn crypto_04_vault_certificate_is_verified() {
    let vault = Vault::start().await;
    let authority = Authority::new();
    let url = start_tls_proxy(&vault, &authority).await;
    let trusted = PemFiles::new((authority.root.clone(), String::new()));
    let other = PemFiles::new((Authority::new().root, String::new()));
    let [trusted_path, other_path] = [&trusted, &other].map(|files| files.certificate().display().to_string());
    let with_ca = |path| [&vault_and_keyset(&url)[..], &[("APP_KEYS__VAULT__CA_PATH", path)]].concat();
    let namespace = ("APP_KEYS__VAULT__NAMESPACE", "team");
    let app = SERVICE.start_with(&[&with_ca(&trusted_path)[..], &[namespace]].concat()).await;
    assert_eq!(vault.take_requests(), ["encrypt team", "decrypt team", "decrypt team"]);
    let error = start_error(&app, &with_ca(&other_path)).await;
    assert!(error.contains("cannot be reached"), "{error}");
    let error = start_error(&app, &with_ca("/nowhere")).await;
    assert!(error.contains("/nowhere cannot be read"), "{error}");
    assert_eq!(vault.take_requests(), Vec::<String>::new());
}
