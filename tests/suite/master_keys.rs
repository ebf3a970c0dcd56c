//! Master keys that change (CRYPTO-05): another keyset, another version of the vault's, and what must not be lost by it.

use secrecy::ExposeSecret;
use service::{
    app,
    authz::policy::Role,
    domain::Clock,
    ops::{Keys, Pass},
    settings::Settings,
};

use crate::{
    retired_keys::retire,
    rotation::{DATA_KEY, QUICK, add, all_is_there, keep, keys, put, under, variables},
    support::{ACME, TestApp, UNTHROTTLED, Vault, as_superuser, eventually, id_of, keyset, query, run},
    vault::{alone, app_of, beside, refusal, version, wrapped_by},
};

#[tokio::test]
async fn crypto_05_a_new_master_key_takes_over_and_the_old_one_is_needed_no_more() {
    let app = TestApp::start().await;
    let paths = add(&app, 2).await;
    let (old, new) = (app.database.master_keys.expose_secret().to_owned(), keyset(2));
    let both = format!("{new},{old}");
    let start = async |master: &str| refused(&app, master).await.map_or(Ok(()), Err);
    // First every replica gets both, then the data keys move, and last the old one goes.
    start(&both).await.unwrap();
    assert!(start(&new).await.unwrap_err().contains("keyset:1"));
    let said = keys(&app, Keys::Rewrap, &[("APP_KEYS__MASTER", &both)]).await.unwrap();
    assert_eq!(said, ["2 data keys are now wrapped by keyset:2"]);
    assert_eq!(
        keys(&app, Keys::Rewrap, &[("APP_KEYS__MASTER", &both)]).await.unwrap(),
        ["0 data keys are now wrapped by keyset:2"]
    );
    assert!(start(&old).await.unwrap_err().contains("keyset:2"));
    let replica = TestApp::start_on(app.database.clone(), &[("APP_KEYS__MASTER", &new)]).await;
    all_is_there(&replica, &paths).await;
}

/// Of two that were made for one version, whichever was thrown away would take with it what it had wrapped.
#[tokio::test]
async fn crypto_05_a_version_is_one_master_key_for_all_replicas_and_for_good() {
    let app = TestApp::start().await;
    let old = app.database.master_keys.expose_secret();
    let [ours, theirs] = [(), ()].map(|()| format!("{},{old}", keyset(2)));
    let start = async |master: &str| refused(&app, master).await;
    // Nothing is wrapped by it yet.
    assert_eq!(start(&ours).await, None);
    let another = "master key keyset:2 is another one than was there under that version";
    assert_eq!(start(&theirs).await.as_deref(), Some(another));
    let (second, first) = theirs.split_once(',').unwrap();
    assert_eq!(start(&format!("{first},{second}")).await.as_deref(), Some(another));
    assert_eq!(keys(&app, Keys::Rewrap, &[("APP_KEYS__MASTER", &theirs)]).await.unwrap_err(), another);
    assert_eq!(wrapped_by(&app).await, ["keyset:1"]);
    assert_eq!(start(&format!("{first},{}", ours.split_once(',').unwrap().0)).await, None);
    assert_eq!(start(old).await, None);
    let names = query(&app.database.keys, "select name from master_keys order by name").await;
    assert_eq!(names, ["keyset:1", "keyset:2"]);
}

/// Why a service with these master keys does not start.
async fn refused(app: &TestApp, master: &str) -> Option<String> {
    let settings = Settings::from_variables(variables(app, &[("APP_KEYS__MASTER", master)])).unwrap();
    app::start(settings, Clock::system()).await.err().map(|error| error.to_string())
}

/// Somebody may add data keys that are none, as `app_keys` may: no key stays where it is for that.
#[tokio::test]
async fn crypto_05_a_data_key_that_does_not_open_keeps_no_other_under_the_old_master_key() {
    let app = TestApp::start().await;
    let paths = add(&app, 1).await;
    let (old, new) = (app.database.master_keys.expose_secret().to_owned(), keyset(2));
    let both = format!("{new},{old}");
    let spoiled = uuid::Uuid::nil();
    let add_one = format!(
        "insert into data_keys (of_tenant, version, wrapped_by, wrapped, created_at)
         values ('{spoiled}', 1, 'keyset:1', decode(repeat('01', 60), 'hex'), now())"
    );
    run(&app.database.keys, &add_one).await.unwrap();
    let told = keys(&app, Keys::Rewrap, &[("APP_KEYS__MASTER", &both)]).await.unwrap_err();
    assert!(told.starts_with("1 data keys do not open"), "{told}");
    let by = format!("select wrapped_by from data_keys where of_tenant <> '{spoiled}'");
    assert_eq!(query(&app.database.keys, &by).await, ["keyset:2", "keyset:2"]);
    let told = keys(&app, Keys::Status, &[("APP_KEYS__MASTER", &both)]).await.unwrap_err();
    assert!(told.contains("does not open with master key keyset:1"), "{told}");
    // It goes without being opened, and so does the old master key.
    retire(&app, &["destroy", &spoiled.to_string(), "--reason", "it is none"]).await.unwrap();
    let replica = TestApp::start_on(app.database.clone(), &[("APP_KEYS__MASTER", &new)]).await;
    replica.user(Role::Admin).get(&paths[0]).await.ok(200);
}

#[tokio::test]
async fn crypto_05_what_a_vault_does_not_open_again_is_never_stored() {
    let vault = Vault::start().await;
    let url = vault.url();
    let app = TestApp::start_with(&beside(&url)).await;
    // It wraps, and opens something else, or opens anything anywhere.
    vault.lose_what_is_wrapped(true);
    let told = keys(&app, Keys::Rewrap, &beside(&url)).await.unwrap_err();
    assert!(told.contains("opens no data key"), "{told}");
    assert_eq!(wrapped_by(&app).await, ["keyset:1"]);
    let told = refusal(&app, &beside(&url)).await;
    assert!(told.contains("opens no data key"), "{told}");
    vault.lose_what_is_wrapped(false);
    vault.ignore_associated_data();
    let told = keys(&app, Keys::Rewrap, &beside(&url)).await.unwrap_err();
    assert!(told.contains("does not bind what it wraps"), "{told}");
    let told = refusal(&app, &beside(&url)).await;
    assert!(told.contains("does not bind what it wraps"), "{told}");
    assert_eq!(wrapped_by(&app).await, ["keyset:1"]);
}

#[tokio::test]
async fn crypto_05_a_vault_rotates_its_key_and_the_old_version_is_needed_no_more() {
    let vault = Vault::start().await;
    let app = app_of(&vault).await;
    let (url, admin) = (vault.url(), app.user(Role::Admin));
    vault.rotate();
    let rewrapped = keys(&app, Keys::Rewrap, &alone(&url)).await.unwrap();
    assert_eq!(rewrapped, [format!("2 data keys are now wrapped by {}", version(2))]);
    assert_eq!(wrapped_by(&app).await, [version(2)]);
    let again = keys(&app, Keys::Rewrap, &alone(&url)).await.unwrap();
    assert_eq!(again, [format!("0 data keys are now wrapped by {}", version(2))]);
    vault.forbid_before(2);
    admin.get("/v1/customers").await.ok(200);
    let replica = TestApp::start_on(app.database.clone(), &alone(&url)).await;
    replica.user(Role::Admin).get("/v1/customers").await.ok(200);
    let status = keys(&app, Keys::Status, &alone(&url)).await.unwrap().join("\n");
    assert!(status.contains(&format!("data key 1, wrapped by {}", version(2))), "{status}");
    // Forbidden too early, nothing is lost and the start says what is missing.
    vault.forbid_before(3);
    let told = refusal(&app, &alone(&url)).await;
    assert!(told.contains("disallowed by policy"), "{told}");
    vault.forbid_before(1);
    // And back to a keyset.
    let back = [&beside(&url)[..], &[("APP_KEYS__PROVIDER", "keyset")]].concat();
    keys(&app, Keys::Rewrap, &back).await.unwrap();
    assert_eq!(wrapped_by(&app).await, ["keyset:1"]);
    TestApp::start_on(app.database.clone(), &UNTHROTTLED).await.user(Role::Admin).get("/v1/customers").await.ok(200);
    let told = refusal(&app, &alone(&url)).await;
    assert!(told.contains("keyset:1, which the settings do not have"), "{told}");
    // Also where a vault wraps what is new.
    keys(&app, Keys::Rewrap, &beside(&url)).await.unwrap();
    let other = keyset(1);
    let told = refusal(&app, &[&beside(&url)[..], &[("APP_KEYS__MASTER", &other)]].concat()).await;
    assert!(told.contains("master key keyset:1 is another one"), "{told}");
}

/// However long it takes, and whatever data key that is: callers would wait with it.
#[tokio::test]
async fn crypto_05_a_pass_holds_nothing_while_it_waits_for_the_vault() {
    let vault = Vault::start().await;
    let app = app_of(&vault).await;
    let (patient, url) = ([("APP_KEYS__VAULT__TIMEOUT_MS", "4900")], vault.url());
    let own = [&alone(&url)[..], &patient, &QUICK].concat();
    let path = add(&app, 2).await.remove(0);
    as_superuser(&app, keep("before", id_of(&path))).await;
    keys(&app, Keys::Rotate { pass: Pass::of(None) }, &own).await.unwrap();
    let reseal = async || keys(&app, Keys::Reseal { pass: Pass::of(Some(ACME.id.uuid())) }, &own).await;
    vault.take_asked();
    reseal().await.unwrap();
    // Now it will ask for one more.
    let asked = vault.take_asked().len();
    as_superuser(&app, put("before")).await;
    vault.silence_after(asked);
    let look = async {
        eventually("it asks", async || vault.asked() == asked + 1).await;
        let open = "select count(*)::text from pg_stat_activity
                    where datname = current_database() and state like 'idle in transaction%'";
        let open = query(&app.database.owner, open).await;
        vault.silence(false);
        open
    };
    let (resealed, open) = tokio::join!(reseal(), look);
    assert_eq!(open, ["0"]);
    assert!(resealed.unwrap().concat().contains("1 customers sealed anew"));
    assert_eq!(under(&app, DATA_KEY).await, ["2: 5"]);
    // And does not take for unreadable what the vault only keeps to itself.
    as_superuser(&app, put("before")).await;
    let own = [&own[..], &[("APP_KEYS__VAULT__TIMEOUT_MS", "200")]].concat();
    vault.silence_after(asked);
    let told = keys(&app, Keys::Reseal { pass: Pass::of(Some(ACME.id.uuid())) }, &own).await.unwrap_err();
    assert!(told.starts_with("0 customers and 1 tenants could not be opened"), "{told}");
    assert_eq!(under(&app, DATA_KEY).await, ["1: 1", "2: 4"]);
}
