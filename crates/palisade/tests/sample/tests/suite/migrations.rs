//! Migrations of kernel and service: each schema has its own, and a feature of the kernel can be
//! switched on later (AUTHZ-08).

use std::str::FromStr as _;

use palisade::db;
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, PgConnection, migrate::Migrator, postgres::PgConnectOptions};

use crate::support::{empty_database, query};

/// The kernel's migrations without those of features, as a binary without features has them.
fn core() -> Migrator {
    let all = db::kernel_migrations();
    let mut core = Migrator::with_migrations(all.iter().filter(|one| one.version < 1000).cloned().collect());
    core.create_schema("palisade");
    core.dangerous_set_table_name("palisade._sqlx_migrations");
    core
}

fn descriptions(migrator: &Migrator) -> Vec<String> {
    migrator.iter().map(|migration| migration.description.to_string()).collect()
}

#[tokio::test]
async fn authz_08_kernel_and_service_have_their_own_schemas_and_migrations() {
    let database = empty_database().await;
    // States the migrations of the service.
    drop(sample::app());
    db::migrate(&database.owner).await.unwrap();
    // A second run changes nothing.
    db::migrate(&database.owner).await.unwrap();
    let kernel = query(&database.owner, "select description from palisade._sqlx_migrations order by version").await;
    assert_eq!(kernel, descriptions(&db::kernel_migrations()));
    let service = query(&database.owner, "select description from public._sqlx_migrations order by version").await;
    assert_eq!(service, descriptions(&sample::store::MIGRATIONS));
}

#[tokio::test]
async fn authz_08_feature_of_the_kernel_can_be_switched_on_later() {
    let database = empty_database().await;
    let options = PgConnectOptions::from_str(database.owner.expose_secret()).unwrap();
    let mut owner = PgConnection::connect_with(&options).await.unwrap();
    core().run(&mut owner).await.unwrap();
    let exists = "select (to_regclass('palisade.api_keys') is not null)::text";
    assert_eq!(query(&database.owner, exists).await, ["false"]);
    db::migrate(&database.owner).await.unwrap();
    assert_eq!(query(&database.owner, exists).await, ["true"]);
}
