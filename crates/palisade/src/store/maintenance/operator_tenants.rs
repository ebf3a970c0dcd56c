//! Acts of operators on the registry of tenants, with the logins `app_operator` and `app_incidents`
//! (AUTHN-04, AUTHN-11, CRYPTO-08). `ops` calls all of it. Every act leaves an event in the audit
//! trail of the tenant.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::operator::{Operator, OperatorError, notify, record_act};
use crate::{
    db::parse_limits,
    model::{QuotaName, TenantId, TenantState},
};

/// Rows of a tenant that one statement deletes.
const BATCH_SIZE: i32 = 1_000;

/// What an operator sets of a tenant. What is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct TenantChange {
    /// Its name.
    pub name: Option<String>,
    /// All its quotas, in calls per minute.
    pub limits: Option<Vec<(QuotaName, u32)>>,
    /// All its names in tokens, each with the issuer.
    pub external_ids: Option<Vec<(String, String)>>,
}

impl TenantChange {
    fn limits(&self) -> Option<Value> {
        let limits = self.limits.as_ref()?.iter();
        Some(limits.map(|(name, calls)| (name.as_str().to_owned(), Value::from(*calls))).collect())
    }

    fn external_ids(&self) -> Option<Value> {
        let pairs = self.external_ids.as_ref()?.iter();
        Some(pairs.map(|(issuer, id)| Value::from(vec![issuer.as_str(), id.as_str()])).collect())
    }
}

/// A tenant, as operators see it.
#[derive(Clone, Debug)]
pub struct TenantEntry {
    /// The tenant.
    pub id: TenantId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Whether it may call.
    pub state: TenantState,
    /// Its own quotas, in calls per minute.
    pub limits: Vec<(QuotaName, u32)>,
    /// Pairs of an issuer and the name of the tenant in its tokens.
    pub external_ids: Value,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// When it was suspended.
    pub suspended_at: Option<DateTime<Utc>>,
    /// When its deletion ended.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// Rows of a table that a deletion deletes or keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionItem {
    /// The table.
    pub table: String,
    /// The number of rows.
    pub rows: i64,
    /// Why they stay; `None` if they are deleted.
    pub kept_for: Option<String>,
}

/// A batch of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedRows {
    /// The table.
    pub table: String,
    /// The number of rows.
    pub rows: i64,
    /// Whether the rows stay and lost some columns.
    pub is_cleared: bool,
}

impl Operator {
    /// Registers a tenant. `false`: it is registered already, or was deleted.
    pub async fn create_tenant(
        &mut self,
        tenant: TenantId,
        change: &TenantChange,
        reason: &str,
    ) -> Result<bool, OperatorError> {
        let create = sqlx::query_scalar!(
            r#"select palisade.create_tenant($1, $2, $3, $4, $5) as "done!""#,
            tenant.uuid(),
            change.name,
            change.limits(),
            change.external_ids(),
            reason
        );
        let done = create.fetch_one(&mut self.0).await.map_err(refused)?;
        notify(&mut self.0).await;
        Ok(done)
    }

    /// Changes a tenant. `false`: it is unknown, or was deleted.
    pub async fn update_tenant(
        &mut self,
        tenant: TenantId,
        change: &TenantChange,
        reason: &str,
    ) -> Result<bool, OperatorError> {
        let update = sqlx::query_scalar!(
            r#"select palisade.update_tenant($1, $2, $3, $4, $5) as "done!""#,
            tenant.uuid(),
            change.name,
            change.limits(),
            change.external_ids(),
            reason
        );
        let done = update.fetch_one(&mut self.0).await.map_err(refused)?;
        notify(&mut self.0).await;
        Ok(done)
    }

    /// Suspends an active tenant, or resumes a suspended one. `false`: it is in another state.
    pub async fn set_tenant_state(
        &mut self,
        tenant: TenantId,
        state: TenantState,
        reason: &str,
    ) -> Result<bool, OperatorError> {
        let set = sqlx::query_scalar!(
            r#"select palisade.set_tenant_state($1, $2, $3) as "done!""#,
            tenant.uuid(),
            state.as_str(),
            reason
        );
        let done = set.fetch_one(&mut self.0).await.map_err(OperatorError::Refused)?;
        notify(&mut self.0).await;
        Ok(done)
    }

    /// The next tenants after this one, at most 1,000.
    pub async fn list_tenants(&mut self, after: Uuid) -> Result<Vec<TenantEntry>, OperatorError> {
        let page = sqlx::query!(
            r#"select of_tenant as "of_tenant!", name, state as "state!", limits as "limits!: Value",
                      external_ids as "external_ids!: Value", created_at as "created_at!", suspended_at, deleted_at
               from palisade.list_tenants($1, 1000)"#,
            after
        );
        let page = page.fetch_all(&mut self.0).await.map_err(OperatorError::Refused)?;
        page.into_iter()
            .map(|row| {
                Ok(TenantEntry {
                    id: TenantId::from_uuid(row.of_tenant),
                    name: row.name,
                    state: row.state.parse().map_err(|_| OperatorError::UnknownState)?,
                    limits: parse_limits(&row.limits),
                    external_ids: row.external_ids,
                    created_at: row.created_at,
                    suspended_at: row.suspended_at,
                    deleted_at: row.deleted_at,
                })
            })
            .collect()
    }

    /// The entry of a tenant.
    pub async fn find_tenant(&mut self, tenant: TenantId) -> Result<Option<TenantEntry>, OperatorError> {
        let before = Uuid::from_u128(tenant.uuid().as_u128().saturating_sub(1));
        let page = self.list_tenants(before).await?;
        Ok(page.into_iter().next().filter(|entry| entry.id == tenant))
    }

    /// Records that the data of a tenant is exported, or that of one of its rows.
    pub async fn record_tenant_export(
        &mut self,
        tenant: TenantId,
        object: &str,
        reason: &str,
    ) -> Result<(), OperatorError> {
        record_act(&mut self.0, Some(tenant), "tenant_exported", object, reason).await.map_err(OperatorError::Refused)
    }

    /// What a deletion of the tenant deletes and keeps.
    pub async fn describe_deletion(&mut self, tenant: TenantId) -> Result<Vec<DeletionItem>, OperatorError> {
        let describe = async {
            // Counting millions of rows takes long, and blocks nothing.
            sqlx::query("set statement_timeout = '1min'").execute(&mut self.0).await?;
            let items = sqlx::query_as!(
                DeletionItem,
                r#"select name as "table!", number as "rows!", kept_for from palisade.describe_deletion($1)"#,
                tenant.uuid()
            );
            let items = items.fetch_all(&mut self.0).await?;
            sqlx::query("reset statement_timeout").execute(&mut self.0).await?;
            Ok(items)
        };
        describe.await.map_err(OperatorError::Refused)
    }

    /// Begins a deletion, or continues one, and destroys the data keys. Returns their number.
    pub async fn begin_deletion(&mut self, tenant: TenantId, reason: &str) -> Result<Option<i64>, OperatorError> {
        let begin = sqlx::query_scalar!("select palisade.begin_deletion($1, $2)", tenant.uuid(), reason);
        let destroyed = begin.fetch_one(&mut self.0).await.map_err(refused)?;
        notify(&mut self.0).await;
        Ok(destroyed)
    }

    /// Deletes the next rows. `None`: none is left.
    pub async fn delete_tenant_rows(&mut self, tenant: TenantId) -> Result<Option<DeletedRows>, OperatorError> {
        let delete = sqlx::query_as!(
            DeletedRows,
            r#"select name as "table!", number as "rows!", is_cleared as "is_cleared!"
               from palisade.delete_tenant_rows($1, $2)"#,
            tenant.uuid(),
            BATCH_SIZE
        );
        delete.fetch_optional(&mut self.0).await.map_err(OperatorError::Refused)
    }

    /// Ends a deletion after its last row.
    pub async fn finish_deletion(&mut self, tenant: TenantId) -> Result<(), OperatorError> {
        let finish = sqlx::query!("select palisade.finish_deletion($1)", tenant.uuid());
        finish.execute(&mut self.0).await.map_err(OperatorError::Refused)?;
        notify(&mut self.0).await;
        Ok(())
    }
}

/// Names the constraints that a command of an operator can violate.
fn refused(error: sqlx::Error) -> OperatorError {
    let constraint = match &error {
        sqlx::Error::Database(error) => error.constraint(),
        _ => None,
    };
    match constraint {
        Some("tenant_ids_pkey") => OperatorError::ExternalIdTaken,
        Some("tenant_not_suspended") => OperatorError::TenantNotSuspended,
        _ => OperatorError::Refused(error),
    }
}
