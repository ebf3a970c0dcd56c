//! Migrations of kernel and service: each schema has its own, and a feature of the kernel can be
//! switched on later (AUTHZ-08).

use std::str::FromStr as _;

use palisade::db;
use sample::access::scopes;
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, PgConnection, migrate::Migrator, postgres::PgConnectOptions};

use crate::support::{ACME, SERVICE, api_keys::key_text, empty_database, query, run};

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
    sample::store::MIGRATIONS.run(&mut owner).await.unwrap();
    let tables = "select count(*)::text from pg_class where relname in ('api_keys', 'subject_roles')";
    assert_eq!(query(&database.owner, tables).await, ["0"]);
    let note = format!(
        "set local app.tenant_id = '{tenant}';
         insert into notes (tenant_id, id, status, items, priority, created_by, created_at, updated_at)
         values ('{tenant}', gen_random_uuid(), 'draft', '[{{\"code\": \"EARLIER-1\", \"count\": 1}}]', 'standard',
                 'a test', now(), now())",
        tenant = ACME.id
    );
    run(&database.writer, &note).await.unwrap();
    db::migrate(&database.owner).await.unwrap();
    // The start checks the rights of each login.
    let app = SERVICE.start_on(database, &[]).await;
    let created = app.new_api_key(&[scopes::NOTES_READ]).await;
    let item = app.api_key(key_text(&created)).get("/v1/items/EARLIER-1").await.ok(200);
    assert_eq!(item["notes"], 1);
}
