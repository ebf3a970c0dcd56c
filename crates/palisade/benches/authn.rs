//! Cost of authentication: `cargo bench --bench authn`.
//!
//! Measures whole calls of `Authenticator::authenticate`, including the revocation check, on one
//! thread. PostgreSQL and the issuer run on the same machine and listen on loopback.

#![expect(clippy::unwrap_used, reason = "a failure ends the benchmark")]
#![expect(clippy::indexing_slicing, reason = "the length of a public key follows from its type")]

#[expect(dead_code, unreachable_pub, reason = "shared with the test suite, which uses all of it")]
#[path = "../../palisade-test/src/keys.rs"]
mod keys;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::LazyLock,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use divan::Bencher;
use http::{HeaderMap, Method, Uri};
use keys::TestKey;
use palisade::{
    authn::{Authenticator, ConnectionInfo, RequestCredentials, SourceNetwork},
    db::Credentials,
    dev::{
        database::Cluster,
        people::TENANTS,
        postgres::{Binaries, Data, Server as Postgres},
    },
    model::{ApiKeyId, Clock, TenantId},
};
use poem::{Route, Server, endpoint::make_sync, listener::TcpAcceptor};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::{net::TcpListener, runtime::Runtime};

const AUDIENCE: &str = "api://benchmark";
const SOURCE: SourceNetwork = SourceNetwork(IpAddr::V4(Ipv4Addr::LOCALHOST));

/// A service with the kernel's operations only.
fn service() -> palisade::App {
    palisade::App::new("benchmark", "0.0.0")
}

fn main() {
    divan::main();
}

/// The authenticators and one credential of each kind.
struct Fixture {
    /// Caches verified credentials.
    cached: Authenticator,
    /// Caches nothing.
    uncached: Authenticator,
    /// A request for each signature algorithm.
    tokens: Vec<(&'static str, HeaderMap)>,
    api_key: HeaderMap,
    _postgres: Postgres,
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| RUNTIME.block_on(set_up()));

async fn set_up() -> Fixture {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let binaries = Binaries::find_or_fetch(&folder.join("postgres-binaries"), |_| {}).await.unwrap();
    let data = folder.join("postgres-benchmark");
    let postgres = Postgres::start(&data, &binaries, Data::Disposable).await.unwrap();
    let urls = Cluster::new(postgres.url()).unwrap().provision("benchmark").await.unwrap();

    let keys = [TestKey::es256("es256"), TestKey::eddsa("eddsa"), TestKey::rs256("rs256"), TestKey::ps256("ps256")];
    let issuer = serve_issuer(&keys).await;
    let key = || STANDARD.encode(palisade::crypto::random::<32>().unwrap());
    let mut variables = urls.variables();
    for (name, value) in [
        ("APP_PROFILE", "development"),
        ("APP_OIDC__ISSUER", &issuer),
        ("APP_OIDC__AUDIENCE", AUDIENCE),
        ("APP_OIDC__CREATE_TENANTS", "true"),
        ("APP_OIDC__SERVICE_CLIENTS", "program"),
        ("APP_SECRETS__MAC_KEY", &key()),
        ("APP_SECRETS__PEPPER", &key()),
    ] {
        variables.insert(name.to_owned(), value.to_owned());
    }
    let settings = service().read_settings(variables.clone()).unwrap();
    variables.insert("APP_OIDC__CACHED_TOKENS".to_owned(), "0".to_owned());
    variables.insert("APP_API_KEYS__CACHE_SECONDS".to_owned(), "0".to_owned());
    let uncached_settings = service().read_settings(variables).unwrap();

    let clock = Clock::system();
    let store = Credentials::new(&settings).unwrap();
    let cached = Authenticator::new(&settings, service().rights(), &store, "http://127.0.0.1", &clock).unwrap();
    let uncached =
        Authenticator::new(&uncached_settings, service().rights(), &store, "http://127.0.0.1", &clock).unwrap();
    for authenticator in [&cached, &uncached] {
        authenticator.load_revocations().await.unwrap();
    }

    let tenant = TENANTS[0].id;
    let api_key = ApiKeyId::generate();
    let claims = claims(&issuer, tenant, clock.timestamp());
    let token = |key: &TestKey| {
        let header = json!({ "alg": key.alg, "typ": "at+jwt", "kid": key.id });
        let token = key.sign_text(&header.to_string(), &claims.to_string());
        (key.alg, headers("authorization", &format!("Bearer {token}")))
    };
    let tokens: Vec<_> = keys.iter().map(token).collect();
    let credentials = RequestCredentials {
        headers: &tokens[0].1,
        method: &Method::GET,
        uri: &Uri::from_static("/v1/me"),
        connection: &ConnectionInfo::default(),
    };
    let creator = cached.authenticate(credentials, SOURCE).await.unwrap();
    let (text, hash) = cached.issue_api_key(&creator, api_key).await.unwrap();
    let insert = format!(
        "begin; set local app.tenant_id = '{tenant}';
         insert into palisade.subject_roles (tenant_id, subject, roles, as_of)
         values ('{tenant}', 'creator', '{{admin}}', now());
         insert into palisade.api_keys (tenant_id, id, name, secret_hash, scopes, created_by, authorized_at,
         created_at, expires_at)
         values ('{tenant}', '{api_key}', 'benchmark', '{hash}', '{{orders:read}}', 'creator', now(), now(),
                 now() + interval '1 day');
         commit"
    );
    let mut owner = PgConnection::connect(urls.owner.expose_secret()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut owner).await.unwrap();

    let api_key = headers("x-api-key", text.expose_secret());
    Fixture { cached, uncached, tokens, api_key, _postgres: postgres }
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
}

/// Claims of a service. For a person, authentication also records the roles in the database.
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

fn bench_authenticate(bencher: Bencher<'_, '_>, authenticator: &Authenticator, headers: &HeaderMap) {
    let credentials = RequestCredentials {
        headers,
        method: &Method::GET,
        uri: &Uri::from_static("/v1/me"),
        connection: &ConnectionInfo::default(),
    };
    let authenticate = || RUNTIME.block_on(authenticator.authenticate(credentials, SOURCE)).unwrap();
    // The first call fetches the issuer's keys.
    authenticate();
    bencher.bench(authenticate);
}

fn token(alg: &str) -> &'static HeaderMap {
    &FIXTURE.tokens.iter().find(|(name, _)| *name == alg).unwrap().1
}

#[divan::bench]
fn token_cached(bencher: Bencher<'_, '_>) {
    bench_authenticate(bencher, &FIXTURE.cached, token("ES256"));
}

#[divan::bench(args = ["ES256", "EdDSA", "RS256", "PS256"])]
fn token_verified(bencher: Bencher<'_, '_>, alg: &str) {
    bench_authenticate(bencher, &FIXTURE.uncached, token(alg));
}

#[divan::bench]
fn api_key_cached(bencher: Bencher<'_, '_>) {
    bench_authenticate(bencher, &FIXTURE.cached, &FIXTURE.api_key);
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn api_key_hashed(bencher: Bencher<'_, '_>) {
    bench_authenticate(bencher, &FIXTURE.uncached, &FIXTURE.api_key);
}
