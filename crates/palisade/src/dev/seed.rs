//! Demo data: the transactions in which a service adds it, and the keys of its sealed columns, which
//! SQL cannot encrypt.

use std::sync::Arc;

use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{
    database::{DatabaseError, Urls},
    people::TENANTS,
};
use crate::{
    app::{Demo, DemoKeys},
    crypto::{DataKey, IndexKeys, MasterKeys, MasterKeyset, WrappedDataKey},
    model::TenantId,
};

/// Adds the demo data that does not exist yet.
///
/// Runs as `app_owner`. Row-level security applies to the owner too, hence one transaction per
/// tenant.
pub async fn seed(demo: &Demo, owner: &mut PgConnection, urls: &Urls) -> Result<(), DatabaseError> {
    for tenant in TENANTS {
        sqlx::query("insert into palisade.tenants (of_tenant, name) values ($1, $2) on conflict do nothing")
            .bind(tenant.id.uuid())
            .bind(tenant.name)
            .execute(&mut *owner)
            .await?;
    }
    let keys = DemoKeys { master: urls.master_keys.clone(), index: urls.index_keys.clone() };
    for (tenant, number) in TENANTS.iter().zip(1..) {
        let begin = format!("begin; set local app.tenant_id = '{}'; set local demo.tenant = '{number}'", tenant.id);
        let mut tx = owner.begin_with(AssertSqlSafe(begin)).await?;
        (demo.seed)(&mut tx, &keys, tenant.id, number).await.map_err(DatabaseError::Demo)?;
        tx.commit().await?;
    }
    Ok(())
}

/// The keys of blind indexes, known to the database.
pub async fn index_keys(owner: &mut PgConnection, keys: &DemoKeys) -> Result<IndexKeys, DatabaseError> {
    let index = IndexKeys::from_text(keys.index.expose_secret()).map_err(|_| DatabaseError::Keys)?;
    sqlx::query("insert into palisade.index_keys (version, check_value) values ($1, $2) on conflict do nothing")
        .bind(i32::from(index.primary()))
        .bind(index.check_value())
        .execute(&mut *owner)
        .await?;
    Ok(index)
}

/// Loads the tenant's newest data key, or creates its first. Runs as `app_owner`, before the API
/// starts.
pub async fn data_key(owner: &mut PgConnection, keys: &DemoKeys, tenant: TenantId) -> Result<DataKey, DatabaseError> {
    let master = MasterKeyset::from_text(keys.master.expose_secret()).map_err(|_| DatabaseError::Keys)?;
    let master = MasterKeys::from_keyset(Arc::new(master));
    let newest = "select version, wrapped_by, wrapped from palisade.data_keys where of_tenant = $1
                  order by version desc limit 1";
    let stored: Option<(i32, String, Vec<u8>)> =
        sqlx::query_as(newest).bind(tenant.uuid()).fetch_optional(&mut *owner).await?;
    if let Some((version, wrapped_by, wrapped)) = stored {
        let stored = WrappedDataKey { version, wrapped_by, wrapped };
        return master.unwrap_data_key(tenant.uuid(), &stored).await.map_err(|_| DatabaseError::Keys);
    }
    let (key, stored) = master.generate(tenant.uuid(), 1).await.map_err(|_| DatabaseError::Keys)?;
    sqlx::query(
        "insert into palisade.data_keys (of_tenant, version, wrapped_by, wrapped, created_at)
         values ($1, 1, $2, $3, now())",
    )
    .bind(tenant.uuid())
    .bind(stored.wrapped_by)
    .bind(stored.wrapped)
    .execute(owner)
    .await?;
    Ok(key)
}
