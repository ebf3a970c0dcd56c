//! Rotation of master keys (CRYPTO-05): `keys rewrap` with a new keyset, a new version of a vault's
//! key, or another provider. No data key may be lost by it, nor by a start without the right key
//! (CRYPTO-04).

use palisade::{
    crypto::MasterKeys,
    dev::database::Urls,
    model::Clock,
    ops::{Keys, ResealOptions},
    settings::Settings,
    store,
};
use sample::access::roles;
use secrecy::ExposeSecret as _;

use crate::support::{
    ACME, DATA_KEY, SERVICE, SHORT_TIMEOUTS, TestApp, UNTHROTTLED, Vault, add_notes, assert_notes_readable, eventually,
    id_of, keyset, notes_by_key, query, restore_note, run, run_as_superuser, run_keys, run_keys_binary, save_note,
    start_error, start_with_vault, superuser, try_start, vault_and_keyset, vault_key, vault_only, wrapping_keys,
};

#[tokio::test]
async fn crypto_05_rewrap_replaces_the_old_master_key() {
    let app = SERVICE.start().await;
    let paths = add_notes(&app, 2).await;
    let old = app.database.master_keys.expose_secret();
    let new = keyset(2);
    let both = format!("{new},{old}");
    let start = async |master: &str| try_start(&app, &[("APP_KEYS__MASTER", master)]).await;
    let rewrap = async || run_keys(&app, Keys::Rewrap, &[("APP_KEYS__MASTER", &both)]).await.unwrap();
    // First every replica gets both keys, then the data keys are rewrapped, then the old key is
    // removed.
    start(&both).await.unwrap();
    assert!(start(&new).await.unwrap_err().contains("keyset:1"));
    assert_eq!(rewrap().await, ["2 data keys are now wrapped by keyset:2"]);
    assert_eq!(rewrap().await, ["0 data keys are now wrapped by keyset:2"]);
    assert!(start(old).await.unwrap_err().contains("keyset:2"));
    let replica = SERVICE.start_on(app.database.clone(), &[("APP_KEYS__MASTER", &new)]).await;
    assert_notes_readable(&replica, &paths).await;
}

/// If two different keys had the same version, removing either would lose what it has wrapped.
#[tokio::test]
async fn crypto_05_master_key_version_belongs_to_one_key_forever() {
    let app = SERVICE.start().await;
    let old = app.database.master_keys.expose_secret();
    let [ours, theirs] = [(), ()].map(|()| format!("{},{old}", keyset(2)));
    let start = async |master: &str| try_start(&app, &[("APP_KEYS__MASTER", master)]).await;
    // The first start registers the key, before it wraps anything.
    assert_eq!(start(&ours).await, Ok(()));
    let another = "master key keyset:2 does not match the key previously registered under that version; configure \
                   that key, or give the new key a new version";
    assert_eq!(start(&theirs).await.unwrap_err(), another);
    let (second, first) = theirs.split_once(',').unwrap();
    assert_eq!(start(&format!("{first},{second}")).await.unwrap_err(), another);
    assert_eq!(run_keys(&app, Keys::Rewrap, &[("APP_KEYS__MASTER", &theirs)]).await.unwrap_err(), another);
    assert_eq!(wrapping_keys(&app).await, ["keyset:1"]);
    assert_eq!(start(&format!("{first},{}", ours.split_once(',').unwrap().0)).await, Ok(()));
    assert_eq!(start(old).await, Ok(()));
    let names = query(&app.database.keys, "select name from palisade.master_keys order by name").await;
    assert_eq!(names, ["keyset:1", "keyset:2"]);
}

/// The login `app_keys` can insert rows that are no wrapped keys. They must not stop a rewrap.
#[tokio::test]
async fn crypto_05_rewrap_skips_corrupt_data_keys() {
    let app = SERVICE.start().await;
    let paths = add_notes(&app, 1).await;
    let new = keyset(2);
    let both = format!("{new},{}", app.database.master_keys.expose_secret());
    let corrupt = uuid::Uuid::nil();
    let add_one = format!(
        "insert into palisade.data_keys (of_tenant, version, wrapped_by, wrapped, created_at)
         values ('{corrupt}', 1, 'keyset:1', decode(repeat('01', 60), 'hex'), now())"
    );
    run(&app.database.keys, &add_one).await.unwrap();
    let error = run_keys(&app, Keys::Rewrap, &[("APP_KEYS__MASTER", &both)]).await.unwrap_err();
    assert!(error.starts_with("1 data keys cannot be unwrapped"), "{error}");
    let wrapped_by = format!("select wrapped_by from palisade.data_keys where of_tenant <> '{corrupt}'");
    assert_eq!(query(&app.database.keys, &wrapped_by).await, ["keyset:2", "keyset:2"]);
    let error = run_keys(&app, Keys::Status, &[("APP_KEYS__MASTER", &both)]).await.unwrap_err();
    assert!(error.contains("cannot be unwrapped with master key keyset:1"), "{error}");
    // `keys destroy` does not unwrap the key. After it the old master key can be removed.
    let corrupt = corrupt.to_string();
    run_keys_binary(&app, &["destroy", &corrupt, "--reason", "corrupt", "--confirm", &corrupt]).await.unwrap();
    let replica = SERVICE.start_on(app.database.clone(), &[("APP_KEYS__MASTER", &new)]).await;
    replica.user(roles::ADMIN).get(&paths[0]).await.ok(200);
}

/// SQL that adds 2,500 data keys that no master key unwraps, of tenants that come before all others.
fn add_damaged_keys(wrapped_by: &str) -> String {
    format!(
        "insert into palisade.data_keys (of_tenant, version, wrapped_by, wrapped, created_at)
         select lpad(to_hex(n + 1), 32, '0')::uuid, 1, '{wrapped_by}', decode(repeat('01', 60), 'hex'), now()
         from generate_series(1, 2500) n"
    )
}

/// Adds the first data key of a tenant, wrapped by the first of these master keys.
async fn add_data_key(urls: &Urls, tenant: uuid::Uuid, master: &str) {
    let master = MasterKeys::new(&settings(urls, master).keys.master).unwrap();
    let (_, key) = master.generate(tenant, 1).await.unwrap();
    sqlx::query("insert into palisade.data_keys values ($1, 1, $2, $3, now())")
        .bind(tenant)
        .bind(key.wrapped_by)
        .bind(key.wrapped)
        .execute(&mut superuser(urls).await)
        .await
        .unwrap();
}

fn settings(urls: &Urls, master: &str) -> Settings {
    let mut variables = TestApp::variables(urls, "http://127.0.0.1:9");
    variables.insert("APP_KEYS__MASTER".to_owned(), master.to_owned());
    sample::app().read_settings(variables).unwrap()
}

/// Commands read data keys in pages. The last page counts too.
#[tokio::test]
async fn crypto_05_rewrap_and_reseal_reach_the_last_page_of_tenants() {
    let app = SERVICE.start().await;
    let old = app.database.master_keys.expose_secret();
    // A command unwraps three data keys before it begins.
    add_data_key(&app.database, uuid::Uuid::from_u128(1), old).await;
    run(&app.database.keys, &add_damaged_keys("keyset:1")).await.unwrap();
    let reseal = Keys::Reseal { options: ResealOptions::new(None) };
    let error = run_keys(&app, reseal, &[]).await.unwrap_err();
    assert!(error.starts_with("0 records and 2500 tenants could not be decrypted"), "{error}");
    let both = format!("{},{old}", keyset(2));
    let error = run_keys(&app, Keys::Rewrap, &[("APP_KEYS__MASTER", &both)]).await.unwrap_err();
    assert!(error.starts_with("2500 data keys cannot be unwrapped"), "{error}");
    let rewrapped = "select count(*)::text from palisade.data_keys where wrapped_by = 'keyset:2'";
    assert_eq!(query(&app.database.keys, rewrapped).await, ["3"]);
}

#[tokio::test]
async fn secret_04_reload_checks_the_last_page_of_data_keys() {
    let urls = SERVICE.database().await;
    let first = urls.master_keys.expose_secret();
    let [current, other] = [(), ()].map(|()| format!("{},{first}", keyset(2)));
    let (_, maintenance) =
        store::maintenance::open(&settings(&urls, &current), sample::app().sealed_tables(), Clock::system()).unwrap();
    // The first tenant has a data key of the other keyset, so that the sample at a reload is fine.
    // Only the last one has a data key that it would lose.
    add_data_key(&urls, uuid::Uuid::from_u128(1), &other).await;
    run(&urls.keys, &add_damaged_keys("keyset:2")).await.unwrap();
    add_data_key(&urls, uuid::Uuid::max(), &current).await;
    let error = maintenance.reload_master_keys(&settings(&urls, &other).keys.master).await.unwrap_err();
    assert!(error.to_string().contains("cannot be unwrapped with master key keyset:2"), "{error}");
    run(&urls.owner, &format!("delete from palisade.data_keys where of_tenant = '{}'", uuid::Uuid::max()))
        .await
        .unwrap();
    maintenance.reload_master_keys(&settings(&urls, &other).keys.master).await.unwrap();
}

#[tokio::test]
async fn crypto_05_wrapped_keys_are_verified_with_the_vault_before_they_are_stored() {
    let vault = Vault::start().await;
    let url = vault.url();
    let app = SERVICE.start_with(&vault_and_keyset(&url)).await;
    // A vault that decrypts to something else, then one that ignores associated data.
    vault.corrupt_ciphertexts(true);
    let error = run_keys(&app, Keys::Rewrap, &vault_and_keyset(&url)).await.unwrap_err();
    assert!(error.contains("cannot decrypt a data key"), "{error}");
    assert_eq!(wrapping_keys(&app).await, ["keyset:1"]);
    let error = start_error(&app, &vault_and_keyset(&url)).await;
    assert!(error.contains("cannot decrypt a data key"), "{error}");
    vault.corrupt_ciphertexts(false);
    vault.ignore_associated_data();
    let error = run_keys(&app, Keys::Rewrap, &vault_and_keyset(&url)).await.unwrap_err();
    assert!(error.contains("ignores associated data"), "{error}");
    let error = start_error(&app, &vault_and_keyset(&url)).await;
    assert!(error.contains("ignores associated data"), "{error}");
    assert_eq!(wrapping_keys(&app).await, ["keyset:1"]);
}

#[tokio::test]
async fn crypto_05_rewrap_follows_a_rotation_of_the_vault_key() {
    let vault = Vault::start().await;
    let app = start_with_vault(&vault).await;
    let url = vault.url();
    let admin = app.user(roles::ADMIN);
    vault.rotate();
    let rewrapped = run_keys(&app, Keys::Rewrap, &vault_only(&url)).await.unwrap();
    assert_eq!(rewrapped, [format!("2 data keys are now wrapped by {}", vault_key(2))]);
    assert_eq!(wrapping_keys(&app).await, [vault_key(2)]);
    let again = run_keys(&app, Keys::Rewrap, &vault_only(&url)).await.unwrap();
    assert_eq!(again, [format!("0 data keys are now wrapped by {}", vault_key(2))]);
    vault.forbid_versions_before(2);
    admin.get("/v1/notes").await.ok(200);
    let replica = SERVICE.start_on(app.database.clone(), &vault_only(&url)).await;
    replica.user(roles::ADMIN).get("/v1/notes").await.ok(200);
    let status = run_keys(&app, Keys::Status, &vault_only(&url)).await.unwrap().join("\n");
    assert!(status.contains(&format!("data key 1, wrapped by {}", vault_key(2))), "{status}");
    // If a version is forbidden too early, nothing is lost and startup reports the reason.
    vault.forbid_versions_before(3);
    let error = start_error(&app, &vault_only(&url)).await;
    assert!(error.contains("disallowed by policy"), "{error}");
    vault.forbid_versions_before(1);
    // Back to a keyset.
    let back = [&vault_and_keyset(&url)[..], &[("APP_KEYS__PROVIDER", "keyset")]].concat();
    run_keys(&app, Keys::Rewrap, &back).await.unwrap();
    assert_eq!(wrapping_keys(&app).await, ["keyset:1"]);
    SERVICE.start_on(app.database.clone(), &UNTHROTTLED).await.user(roles::ADMIN).get("/v1/notes").await.ok(200);
    let error = start_error(&app, &vault_only(&url)).await;
    assert!(error.contains("keyset:1, which the settings do not have"), "{error}");
    // A keyset beside the vault is checked too.
    run_keys(&app, Keys::Rewrap, &vault_and_keyset(&url)).await.unwrap();
    let other = keyset(1);
    let error = start_error(&app, &[&vault_and_keyset(&url)[..], &[("APP_KEYS__MASTER", &other)]].concat()).await;
    assert!(error.contains("master key keyset:1 does not match"), "{error}");
}

/// A transaction that waited for the vault would hold a connection and row locks, on which callers
/// wait.
#[tokio::test]
async fn crypto_05_reseal_holds_no_transaction_while_it_waits_for_the_vault() {
    let vault = Vault::start().await;
    let app = start_with_vault(&vault).await;
    let url = vault.url();
    let settings = [&vault_only(&url)[..], &[("APP_KEYS__VAULT__TIMEOUT_MS", "4900")], &SHORT_TIMEOUTS].concat();
    let path = add_notes(&app, 2).await.remove(0);
    run_as_superuser(&app, save_note("before", id_of(&path))).await;
    run_keys(&app, Keys::Rotate { options: ResealOptions::new(None) }, &settings).await.unwrap();
    let reseal = Keys::Reseal { options: ResealOptions::new(Some(ACME.id.uuid())) };
    vault.take_requests();
    run_keys(&app, reseal.clone(), &settings).await.unwrap();
    // The next reseal needs one more data key, the restored note's.
    let requests = vault.take_requests().len();
    run_as_superuser(&app, restore_note("before")).await;
    vault.silence_after(requests);
    let open_transactions = async {
        eventually("the vault is asked", async || vault.request_count() == requests + 1).await;
        let open = "select count(*)::text from pg_stat_activity
                    where datname = current_database() and state like 'idle in transaction%'";
        let open = query(&app.database.owner, open).await;
        vault.silence(false);
        open
    };
    let (resealed, open) = tokio::join!(run_keys(&app, reseal.clone(), &settings), open_transactions);
    assert_eq!(open, ["0"]);
    assert!(resealed.unwrap().concat().contains("1 records re-encrypted"));
    assert_eq!(notes_by_key(&app, DATA_KEY).await, ["2: 5"]);
    // While the vault does not respond, its keys count as unavailable, not as corrupt.
    run_as_superuser(&app, restore_note("before")).await;
    let settings = [&settings[..], &[("APP_KEYS__VAULT__TIMEOUT_MS", "200")]].concat();
    vault.silence_after(requests);
    let error = run_keys(&app, reseal, &settings).await.unwrap_err();
    assert!(error.starts_with("0 records and 1 tenants could not be decrypted"), "{error}");
    assert_eq!(notes_by_key(&app, DATA_KEY).await, ["1: 1", "2: 4"]);
}

#[tokio::test]
async fn crypto_04_start_without_the_master_key_fails_and_loses_nothing() {
    let database = SERVICE.database().await;
    let correct = database.master_keys.expose_secret().to_owned();
    let start = async |master: &str| {
        let mut variables = TestApp::variables(&database, "http://127.0.0.1:9");
        variables.insert("APP_KEYS__MASTER".to_owned(), master.to_owned());
        SERVICE.try_start(variables).await
    };
    let missing = start(&keyset(2)).await.unwrap_err();
    assert!(missing.contains("wrapped by master key keyset:1, which the settings do not have"), "{missing}");
    let wrong = start(&keyset(1)).await.unwrap_err();
    assert!(wrong.contains("cannot be unwrapped with master key keyset:1"), "{wrong}");
    start(&format!("{},{correct}", keyset(2))).await.unwrap();
    start(&correct).await.unwrap();
}
