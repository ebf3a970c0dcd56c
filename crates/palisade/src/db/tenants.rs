//! Queries of the registry of tenants, with the login `app_authn` (AUTHN-04, AUTHN-11).
//!
//! [`super::RevocationFeed`] reads what changed; [`crate::authn`] keeps all tenants in memory.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Credentials, DbError, credentials::with_timeout, parse_stored, tracing_executor::TracingExecutor};
use crate::model::{QuotaName, RegisteredTenant, TenantId, TenantState};

/// Largest number of tenants in one round trip.
const PAGE_SIZE: usize = 10_000;

struct TenantRow {
    of_tenant: Uuid,
    state: String,
    limits: Value,
    issuers: Vec<String>,
    external_ids: Vec<String>,
    horizon: String,
}

impl TryFrom<TenantRow> for RegisteredTenant {
    type Error = DbError;

    fn try_from(row: TenantRow) -> Result<Self, DbError> {
        Ok(Self {
            id: TenantId::from_uuid(row.of_tenant),
            state: parse_stored(&row.state)?,
            limits: parse_limits(&row.limits),
            external_ids: row.issuers.into_iter().zip(row.external_ids).collect(),
        })
    }
}

/// The quotas of a tenant. One that this version does not know is skipped.
pub(crate) fn parse_limits(limits: &Value) -> Vec<(QuotaName, u32)> {
    let limits = limits.as_object().into_iter().flatten();
    limits.filter_map(|(name, calls)| Some((name.parse().ok()?, u32::try_from(calls.as_u64()?).ok()?))).collect()
}

/// Reads the tenants that transactions from `horizon` on changed, and moves the horizon, as
/// [`read_revocations`](super::revocation_feed::read_revocations) does.
pub(super) async fn read_tenants(
    connection: &mut PgConnection,
    horizon: &mut String,
) -> Result<Vec<RegisteredTenant>, DbError> {
    let from = horizon.clone();
    let mut tenants: Vec<RegisteredTenant> = Vec::new();
    let mut after = Uuid::nil();
    loop {
        let page = sqlx::query_as!(
            TenantRow,
            r#"select t.of_tenant, t.state, t.limits,
                      array(select i.issuer from palisade.tenant_ids i where i.of_tenant = t.of_tenant
                            order by i.issuer, i.external_id) as "issuers!",
                      array(select i.external_id from palisade.tenant_ids i where i.of_tenant = t.of_tenant
                            order by i.issuer, i.external_id) as "external_ids!",
                      pg_snapshot_xmin(pg_current_snapshot())::text as "horizon!"
               from palisade.tenants t where t.changed_in >= $1::text::xid8 and t.of_tenant > $2
               order by t.of_tenant limit $3"#,
            from,
            after,
            i64::try_from(PAGE_SIZE).unwrap_or(i64::MAX)
        );
        let page = with_timeout(page.fetch_all(TracingExecutor(&mut *connection))).await?;
        let is_last = page.len() < PAGE_SIZE;
        for row in page {
            if after.is_nil() {
                horizon.clone_from(&row.horizon);
            }
            after = row.of_tenant;
            tenants.push(row.try_into()?);
        }
        if is_last {
            return Ok(tenants);
        }
    }
}

impl Credentials {
    /// The state of a tenant that this replica does not know; registers it if it is new.
    pub async fn admit_tenant(&self, tenant: TenantId, issuer: &str) -> Result<TenantState, DbError> {
        let mut connection = self.pool.connection().await?;
        let admit = sqlx::query_scalar!(r#"select palisade.admit_tenant($1, $2) as "state!""#, tenant.uuid(), issuer);
        let state = admit.fetch_one(TracingExecutor(&mut connection)).await?;
        connection.release();
        parse_stored(&state)
    }
}
