//! Migrations of databases with data: the rows stay and keep their meaning (AUTHN-12, CRYPTO-08).

use std::str::FromStr as _;

use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::support::{ACME, GLOBEX, empty_database};

/// An empty database at this migration; returns the migrator and a connection of the owner.
async fn migrated_to(migration: i64) -> (sqlx::migrate::Migrator, PgConnection) {
    let database = empty_database().await;
    let options = PgConnectOptions::from_str(database.owner.expose_secret()).unwrap();
    let mut owner = PgConnection::connect_with(&options).await.unwrap();
    let migrations = sqlx::migrate!();
    migrations.run_to(migration, &mut owner).await.unwrap();
    (migrations, owner)
}

/// Entries that older versions kept for destroyed tenants would need their index key forever.
#[tokio::test]
async fn crypto_08_migration_removes_index_entries_of_destroyed_tenants_only() {
    let (migrations, mut owner) = migrated_to(13).await;
    for (tenant, wrapped, destroyed) in [(ACME.id, "null", "now()"), (GLOBEX.id, "sealed.it", "null")] {
        let insert = format!(
            "set app.tenant_id = '{tenant}';
             create temp table sealed as select '\\x01'::bytea || decode(repeat('00', 60), 'hex') as it;
             insert into data_keys (of_tenant, version, wrapped_by, wrapped, created_at, destroyed_at)
             select '{tenant}', 1, 'keyset:1', {wrapped}, now(), {destroyed} from sealed;
             insert into customers (tenant_id, id, name, email, email_index, tax_id, tax_id_index, created_by,
                                    created_at, updated_at)
             select '{tenant}', gen_random_uuid(), 'Someone', it, '\\x0001' || substring(it for 16), it,
                    '\\x0001' || substring(it for 16), 'old', now(), now() from sealed;
             drop table sealed"
        );
        sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut owner).await.unwrap();
    }
    // Globex keeps one intact data key (version 2), so it does not count as destroyed.
    let add_key = "insert into data_keys select of_tenant, 2, wrapped_by, wrapped, created_at from data_keys
                   where wrapped is not null;
                   update data_keys set wrapped = null, destroyed_at = now() where version = 1";
    sqlx::raw_sql(add_key).execute(&mut owner).await.unwrap();
    migrations.run(&mut owner).await.unwrap();
    for (tenant, entries) in [(ACME.id, "00"), (GLOBEX.id, "11")] {
        let read = format!(
            "set app.tenant_id = '{tenant}'; select concat(count(email_index), count(tax_id_index)) from customers"
        );
        let row = sqlx::raw_sql(AssertSqlSafe(read)).fetch_one(&mut owner).await.unwrap();
        assert_eq!(sqlx::Row::get::<String, _>(&row, 0), entries);
    }
    let forced = "select relforcerowsecurity from pg_class where relname = 'customers'";
    assert!(sqlx::query_scalar::<_, bool>(forced).fetch_one(&mut owner).await.unwrap());
}

/// For a creator of several keys the roles of the newest token count. A subject of two tenants is
/// two creators.
#[tokio::test]
async fn authn_12_migration_keeps_existing_api_keys_and_their_creators_roles() {
    let (migrations, mut owner) = migrated_to(11).await;
    let acme = ACME.id;
    let globex = GLOBEX.id;
    let mut create_key = async |tenant, creator: &str, roles: &str, seen: &str, scopes: &str| {
        let insert = format!(
            "set app.tenant_id = '{tenant}';
             insert into api_keys (tenant_id, id, name, secret_hash, scopes, created_by, creator_roles,
                                   creator_roles_as_of, authorized_at, created_at, expires_at)
             values ('{tenant}', gen_random_uuid(), 'old', '$argon2id$v=19$m=19456,t=2,p=1$of a test', '{scopes}',
                     '{creator}', '{roles}', '{seen}', '2026-01-01', '2026-01-01', '2026-12-31')"
        );
        sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut owner).await.unwrap();
    };
    create_key(acme, "alice", "{admin,billing}", "2026-01-01", "{orders:read}").await;
    create_key(acme, "alice", "{viewer}", "2026-01-03", "{orders:write}").await;
    create_key(acme, "alice", "{admin}", "2026-01-02", "{catalog:read}").await;
    // Of two tokens of the same second, the roles common to both count.
    create_key(acme, "bob", "{admin,billing}", "2026-01-01", "{orders:read}").await;
    create_key(acme, "bob", "{billing}", "2026-01-01", "{orders:read}").await;
    create_key(globex, "alice", "{admin}", "2026-01-01", "{orders:read}").await;
    migrations.run(&mut owner).await.unwrap();

    let mut seen = async |tenant| {
        let read = format!(
            "set app.tenant_id = '{tenant}';
             select concat_ws(' ', k.created_by, k.scopes, r.roles, r.as_of::date, r.makes_keys, k.authorized_by)
             from api_keys k join roles_seen r using (tenant_id) where r.subject = k.created_by order by 1"
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(read)).fetch_all(&mut owner).await.unwrap();
        rows.iter().map(|row| sqlx::Row::get(row, 0)).collect::<Vec<String>>()
    };
    assert_eq!(
        seen(acme).await,
        [
            "alice {catalog:read} {viewer} 2026-01-03 t",
            "alice {orders:read} {viewer} 2026-01-03 t",
            "alice {orders:write} {viewer} 2026-01-03 t",
            "bob {orders:read} {billing} 2026-01-01 t",
            "bob {orders:read} {billing} 2026-01-01 t",
        ]
    );
    assert_eq!(seen(globex).await, ["alice {orders:read} {admin} 2026-01-01 t"]);
}
