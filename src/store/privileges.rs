use sqlx::PgPool;

use super::{StoreError, UnfitDatabase};

/// Refuses a login that could bypass row-level security or change the schema (AUTHZ-08).
pub(super) async fn check(pool: &PgPool) -> Result<(), UnfitDatabase> {
    let login = sqlx::query!(
        r#"select current_user::text as "name!",
                  rolsuper as "superuser!",
                  rolbypassrls as "bypasses_row_security!",
                  (rolcreaterole or rolcreatedb or rolreplication) as "administers!",
                  exists (
                      select from pg_class c
                      where c.relnamespace = 'public'::regnamespace and pg_has_role(c.relowner, 'member')
                  ) as "owns_tables!",
                  has_schema_privilege('public', 'create') as "creates!"
           from pg_roles where rolname = current_user"#
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::from)?;
    let excess = if login.superuser {
        "is a superuser"
    } else if login.bypasses_row_security {
        "bypasses row-level security"
    } else if login.administers {
        "may create roles or databases, or replicate"
    } else if login.owns_tables {
        "owns tables of the schema, so could switch row-level security off"
    } else if login.creates {
        "may create objects in the schema"
    } else {
        return Ok(());
    };
    Err(UnfitDatabase::Privileged { login: login.name, excess })
}
