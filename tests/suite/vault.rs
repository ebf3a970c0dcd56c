//! Master keys in a real vault (CRYPTO-04): in CI, `OpenBao` with the key and the policy of
//! deploy/vault.yaml.

use secrecy::ExposeSecret as _;
use service::access::roles;

use crate::support::{SERVICE, TestApp, query, superuser};

/// `TEST_VAULT_URL` and `TEST_VAULT_TOKEN` name the vault. Without them, the test does nothing.
#[tokio::test]
async fn crypto_04_interop_real_vault_wraps_and_binds_data_keys() {
    let Ok(url) = std::env::var("TEST_VAULT_URL") else { return };
    let token = std::env::var("TEST_VAULT_TOKEN").expect("TEST_VAULT_TOKEN is set with TEST_VAULT_URL");
    let with_keyset = [
        ("APP_KEYS__PROVIDER", "vault"),
        ("APP_KEYS__VAULT__URL", &*url),
        ("APP_KEYS__VAULT__KEY", "api"),
        ("APP_KEYS__VAULT__TOKEN", &*token),
    ];
    let without_keyset = [&with_keyset[..], &[("APP_KEYS__MASTER", "")]].concat();
    let app = SERVICE.start_with(&with_keyset).await;
    let mut variables = TestApp::variables(&app.database, app.issuer.url());
    variables.extend(with_keyset.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut rewrap = SERVICE.binary();
    rewrap.args(["keys", "rewrap"]).envs(&variables);
    rewrap.env("APP_DATABASE__OPERATOR_URL", app.database.operator.expose_secret());
    let output = tokio::task::spawn_blocking(move || rewrap.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let names = query(&app.database.owner, "select distinct wrapped_by from palisade.data_keys").await;
    assert!(names.iter().all(|name| name.starts_with("vault:transit/api:v")), "{names:?}");
    let replica = SERVICE.start_on(app.database.clone(), &without_keyset).await;
    replica.user(roles::ADMIN).get("/v1/customers").await.ok(200);
    let exchange = "update palisade.data_keys k set wrapped = o.wrapped from palisade.data_keys o
                    where o.of_tenant <> k.of_tenant";
    sqlx::raw_sql(exchange).execute(&mut superuser(&app.database).await).await.unwrap();
    variables.remove("APP_KEYS__MASTER");
    let error = SERVICE.try_start(variables).await.unwrap_err();
    assert!(error.contains("cannot decrypt a data key"), "{error}");
}
