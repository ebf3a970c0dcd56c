//! What authentication costs: `cargo bench --bench authn`.
//!
//! Against a PostgreSQL and an issuer on loopback, like everything else here. The figures are of whole calls of
//! `Authenticator::authenticate`, revocation check included, on one thread.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![expect(clippy::indexing_slicing, reason = "a public key has the length that its kind has")]

#[expect(dead_code, unreachable_pub, reason = "shared with the suite, which uses more of it")]
#[path = "../tests/suite/support/keys.rs"]
mod keys;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::LazyLock,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use divan::Bencher;
use http::HeaderMap;
use poem::{Route, Server, endpoint::make_sync, listener::TcpAcceptor};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use service::{
    authn::{Authenticator, Peer, Shown, Source},
    dev::{
        database::Cluster,
        demo,
        postgres::{Binaries, Data, Durability, Server as Postgres},
    },
    domain::{ApiKeyId, Clock, TenantId},
    settings::Settings,
    store::Credentials,
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::{net::TcpListener, runtime::Runtime};

use keys::TestKey;

const AUDIENCE: &str = "api://benchmark";
const SOURCE: Source = Source(IpAddr::V4(Ipv4Addr::LOCALHOST));

fn main() {
    divan::main();
}

/// Everything a call needs, made once.
struct Stage {
    runtime: Runtime,
    /// Remembers what it verified.
    remembering: Authenticator,
    /// Remembers nothing.
    forgetting: Authenticator,
    tokens: Vec<(&'static str, HeaderMap)>,
    api_key: HeaderMap,
    _postgres: Postgres,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let (remembering, forgetting, tokens, api_key, postgres) = runtime.block_on(set_up());
    Stage { runtime, remembering, forgetting, tokens, api_key, _postgres: postgres }
});

type Parts = (Authenticator, Authenticator, Vec<(&'static str, HeaderMap)>, HeaderMap, Postgres);

async fn set_up() -> Parts {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let binaries = Binaries::find_or_fetch(&folder.join("postgres-binaries"), |_| {}).await.unwrap();
    let data = folder.join("postgres-benchmark");
    let postgres = Postgres::start(&data, &binaries, Durability::Disposable, Data::Deleted).await.unwrap();
    let urls = Cluster::new(postgres.url()).unwrap().provision("benchmark").await.unwrap();

    let keys = [TestKey::es256("es256"), TestKey::eddsa("eddsa"), TestKey::rs256("rs256"), TestKey::ps256("ps256")];
    let issuer = serve_issuer(&keys).await;
    let key = || STANDARD.encode(service::crypto::random::<32>().unwrap());
    let mut variables = urls.variables();
    for (name, value) in [
        ("APP_PROFILE", "development"),
        ("APP_OIDC__ISSUER", &issuer),
        ("APP_OIDC__AUDIENCE", AUDIENCE),
        ("APP_OIDC__SERVICE_CLIENTS", "program"),
        ("APP_SECRETS__MAC_KEY", &key()),
        ("APP_SECRETS__PEPPER", &key()),
    ] {
        variables.insert(name.to_owned(), value.to_owned());
    }
    let settings = Settings::from_variables(variables.clone()).unwrap();
    variables.insert("APP_OIDC__CACHED_TOKENS".to_owned(), "0".to_owned());
    variables.insert("APP_API_KEYS__REMEMBERED_SECONDS".to_owned(), "0".to_owned());
    let forgetful = Settings::from_variables(variables).unwrap();

    let clock = Clock::system();
    let store = Credentials::new(&settings).unwrap();
    let remembering = Authenticator::new(&settings, &store, &clock).unwrap();
    let forgetting = Authenticator::new(&forgetful, &store, &clock).unwrap();
    for authenticator in [&remembering, &forgetting] {
        authenticator.learn_revocations().await.unwrap();
    }

    let (tenant, id) = (demo::TENANTS[0].id, ApiKeyId::generate());
    let claims = claims(&issuer, tenant, clock.timestamp());
    let token = |key: &TestKey| {
        let header = json!({ "alg": key.alg, "typ": "at+jwt", "kid": key.id });
        let token = key.sign_text(&header.to_string(), &claims.to_string());
        (key.alg, headers("authorization", &format!("Bearer {token}")))
    };
    let tokens: Vec<_> = keys.iter().map(token).collect();
    let shown = Shown { headers: &tokens[0].1, query: "", peer: &Peer::default() };
    let program = remembering.authenticate(shown, SOURCE).await.unwrap();
    let (text, hash) = remembering.issue_key(&program, id).await.unwrap();
    let insert = format!(
        "begin; set local app.tenant_id = '{tenant}';
         insert into roles_seen (tenant_id, subject, roles, as_of) values ('{tenant}', 'somebody', '{{admin}}', now());
         insert into api_keys (tenant_id, id, name, secret_hash, scopes, created_by, authorized_at, created_at, expires_at)
         values ('{tenant}', '{id}', 'benchmark', '{hash}', '{{orders:read}}', 'somebody', now(), now(),
                 now() + interval '1 day');
         commit"
    );
    let mut owner = PgConnection::connect(urls.owner.expose_secret()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut owner).await.unwrap();

    (remembering, forgetting, tokens, headers("x-api-key", text.expose_secret()), postgres)
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
}

/// Of a program: what a person may do is noted, which is a message to the database.
fn claims(issuer: &str, tenant: TenantId, now: i64) -> Value {
    json!({
        "iss": issuer, "aud": AUDIENCE, "sub": "program", "client_id": "program", "iat": now, "exp": now + 900,
        "jti": "0190a000-0000-7000-8000-000000000000", "scope": "orders:read orders:write customers:read",
        "tenant_id": tenant.to_string(),
    })
}

async fn serve_issuer(keys: &[TestKey]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let metadata = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }).to_string();
    let set = json!({ "keys": keys.iter().map(TestKey::jwk).collect::<Vec<_>>() }).to_string();
    let app = Route::new()
        .at("/.well-known/openid-configuration", make_sync(move |_| metadata.clone()))
        .at("/keys", make_sync(move |_| set.clone()));
    let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
    tokio::spawn(async move { Server::new_with_acceptor(acceptor).run(app).await });
    url
}

fn call(bencher: Bencher<'_, '_>, authenticator: &Authenticator, headers: &HeaderMap) {
    let stage = &*STAGE;
    let shown = Shown { headers, query: "", peer: &Peer::default() };
    let once = || stage.runtime.block_on(authenticator.authenticate(shown, SOURCE)).unwrap();
    // The first one fetches the issuer's keys.
    once();
    bencher.bench(once);
}

fn token(alg: &str) -> &'static HeaderMap {
    &STAGE.tokens.iter().find(|(name, _)| *name == alg).unwrap().1
}

#[divan::bench]
fn token_known(bencher: Bencher<'_, '_>) {
    call(bencher, &STAGE.remembering, token("ES256"));
}

#[divan::bench(args = ["ES256", "EdDSA", "RS256", "PS256"])]
fn token_verified(bencher: Bencher<'_, '_>, alg: &str) {
    call(bencher, &STAGE.forgetting, token(alg));
}

#[divan::bench]
fn api_key_known(bencher: Bencher<'_, '_>) {
    call(bencher, &STAGE.remembering, &STAGE.api_key);
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn api_key_hashed(bencher: Bencher<'_, '_>) {
    call(bencher, &STAGE.forgetting, &STAGE.api_key);
}
