//! Checks of the database and of a login before the service serves with them.
//!
//! In: a connection of the login, and its role. Out: the first deviation, as an [`UnfitDatabase`]
//! that says what to do. A login needs exactly the privileges of its role (AUTHZ-08), tables need
//! row-level security (AUTHZ-07), and the audit trail must be append-only (LOG-05). `rotating_pool`
//! calls these at the start and before each renewal of a password.

use sqlx::PgConnection;

use super::{DbError, UnfitDatabase};

/// The role of deploy/roles.sql that a login of the service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DbRole {
    /// `app_reader`: reads the data of tenants.
    Reader,
    /// `app_writer`: reads and writes the data of tenants.
    Writer,
    /// `app_authn`: looks up API keys, revocations and overrides.
    Authn,
    /// `app_keys`: reads and adds wrapped data keys.
    Keys,
    /// `app_incidents`: revokes credentials and sets overrides, through functions only.
    Incidents,
}

/// Rejects a login that could bypass row-level security, change the schema, or use privileges that
/// are reserved to another role (AUTHZ-08).
pub(crate) async fn check_excess_privileges(connection: &mut PgConnection, role: DbRole) -> Result<(), UnfitDatabase> {
    let login = sqlx::query!(
        r#"select current_user::text as "name!",
                  session_user <> current_user as "switched!",
                  -- Its own attributes, and those of every role it could become.
                  exists (select from pg_roles r where r.rolsuper and pg_has_role(r.oid, 'member')) as "superuser!",
                  exists (select from pg_roles r where r.rolbypassrls and pg_has_role(r.oid, 'member'))
                      as "bypasses_row_security!",
                  exists (select from pg_roles r where (r.rolcreaterole or r.rolcreatedb or r.rolreplication)
                                                   and pg_has_role(r.oid, 'member')) as "administers!",
                  exists (select from pg_class c where c.relnamespace = 'public'::regnamespace
                                                   and pg_has_role(c.relowner, 'member')) as "owns_tables!",
                  has_schema_privilege('public', 'create') as "creates!",
                  exists (select from pg_class c where c.relnamespace = 'public'::regnamespace
                                                   and c.relkind in ('r', 'p')
                                                   and (has_table_privilege(c.oid, 'insert, update, delete, truncate')
                                                        or has_any_column_privilege(c.oid, 'insert, update')))
                      as "writes!",
                  exists (select from pg_class c where c.relnamespace = 'public'::regnamespace
                                                   and c.relkind in ('r', 'p', 'v', 'm')
                                                   and c.relname not in
                                                       ('api_keys', 'roles_seen', 'revocations', 'tenant_quotas',
                                                        'measures', 'data_keys', 'index_keys', 'master_keys', '_sqlx_migrations')
                                                   and has_any_column_privilege(c.oid, 'select'))
                      as "reads_business!",
                  exists (select from pg_attribute a join pg_class c on c.oid = a.attrelid
                          where c.relnamespace = 'public'::regnamespace and c.relname = 'api_keys'
                            and a.attname = 'secret_hash' and has_column_privilege(a.attrelid, a.attnum, 'select'))
                      as "reads_hashes!",
                  exists (select from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
                          where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
                            and (has_table_privilege(c.oid, 'update, truncate')
                                 or has_any_column_privilege(c.oid, 'insert') or has_table_privilege(c.oid, 'delete')
                                 or has_column_privilege(c.oid, a.attnum, 'update')
                                    and (c.relname, a.attname) <> ('api_keys', 'last_used_at')))
                      as "writes_more_than_key_use!",
                  exists (select from pg_class c where c.relnamespace = 'public'::regnamespace and c.relname = 'roles_seen'
                                                   and (has_any_column_privilege(c.oid, 'insert, update')
                                                        or has_table_privilege(c.oid, 'delete, truncate'))) as "raises_keys!",
                  exists (select from pg_class c where c.relnamespace = 'public'::regnamespace
                                                   and c.relname not in ('data_keys', 'index_keys', 'master_keys', '_sqlx_migrations')
                                                   and c.relkind in ('r', 'p', 'v', 'm')
                                                   and (has_any_column_privilege(c.oid, 'select, insert, update')
                                                        or has_table_privilege(c.oid, 'delete, truncate')))
                      as "does_more_than_keys!",
                  exists (select from pg_class c where c.relnamespace = 'public'::regnamespace
                          and c.relname in ('data_keys', 'index_keys', 'master_keys') and
                          (has_any_column_privilege(c.oid, 'select, insert, update') or has_table_privilege(c.oid, 'delete, truncate')))
                      as "reaches_data_keys!",
                  exists (select from pg_class c where c.relnamespace = 'public'::regnamespace
                          and c.relname in ('data_keys', 'index_keys', 'master_keys') and
                          (has_any_column_privilege(c.oid, 'update') or has_table_privilege(c.oid, 'delete, truncate')))
                  or exists (select from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname in
                             ('forget_index_key', 'clear_indexes') and has_function_privilege(p.oid, 'execute'))
                      as "destroys_data_keys!",
                  exists (select from pg_proc p where p.pronamespace = 'public'::regnamespace
                          and p.proname in ('note_revocation', 'note_tenant_quota', 'note_operator_act', 'note_measure')
                          and has_function_privilege(p.oid, 'execute')) as "operates!"
           "#
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let excess = if login.superuser {
        "is a superuser, or can become one"
    } else if login.switched {
        "`session_user` differs from `current_user` (a `SET ROLE` is in effect)"
    } else if login.bypasses_row_security {
        "bypasses row-level security, or can become a role that does"
    } else if login.administers {
        "may create roles or databases, or replicate"
    } else if login.owns_tables {
        "owns tables of the schema, so it could switch row-level security off"
    } else if login.creates {
        "may create objects in the schema"
    } else if login.writes && role == DbRole::Reader {
        "may write, but is the reader"
    } else if login.reads_business && role == DbRole::Authn {
        "may read business data, but is the login of authentication"
    } else if login.writes_more_than_key_use && role == DbRole::Authn {
        "may write more than the last use of API keys, but is the login of authentication"
    } else if login.reads_hashes && role != DbRole::Authn {
        "may read the hashes of API keys, but is not the login of authentication"
    } else if login.raises_keys && role != DbRole::Authn {
        "may change the recorded roles that bound the rights of API keys"
    } else if login.does_more_than_keys && role == DbRole::Keys {
        "may access more than data keys, but is the login of data keys"
    } else if login.reaches_data_keys && role != DbRole::Keys {
        "may access data keys, but is not the login of data keys"
    } else if login.destroys_data_keys {
        "may change or destroy data keys, which is reserved to operators"
    } else if login.operates && role != DbRole::Incidents {
        "may revoke credentials or set quotas, which is reserved to operators"
    } else {
        return Ok(());
    };
    Err(UnfitDatabase::Privileged { login: login.name, excess })
}

/// Rejects a login of incident commands that may access tables. It needs functions only.
pub(crate) async fn check_no_table_access(connection: &mut PgConnection, role: DbRole) -> Result<(), UnfitDatabase> {
    if role != DbRole::Incidents {
        return Ok(());
    }
    let login = sqlx::query!(
        r#"select current_user::text as "name!",
                  exists (select from pg_class c where c.relnamespace = 'public'::regnamespace
                                                   and c.relname <> '_sqlx_migrations'
                                                   and c.relkind in ('r', 'p', 'v', 'm')
                                                   and (has_any_column_privilege(c.oid, 'select, insert, update')
                                                        or has_table_privilege(c.oid, 'delete, truncate')))
                      as "reaches_tables!""#
    );
    let login = login.fetch_one(&mut *connection).await.map_err(DbError::from)?;
    let excess = "may access tables, but is the login of incident commands";
    if login.reaches_tables { Err(UnfitDatabase::Privileged { login: login.name, excess }) } else { Ok(()) }
}

/// Rejects a login that lacks a privilege of its role, since every call with it would fail. Needs
/// the schema.
pub(crate) async fn check_missing_privileges(connection: &mut PgConnection, role: DbRole) -> Result<(), UnfitDatabase> {
    let login = sqlx::query!(
        r#"select current_user::text as "name!",
                  has_any_column_privilege('public.orders', 'select') as "reads!",
                  has_any_column_privilege('public.orders', 'insert') as "writes!",
                  has_function_privilege('public.read_api_key(uuid, uuid)', 'execute')
                      and has_function_privilege('public.note_roles(uuid, text, text[], timestamptz)', 'execute')
                      and has_any_column_privilege('public.revocations', 'select') as "authenticates!",
                  has_any_column_privilege('public.data_keys', 'select')
                      and has_any_column_privilege('public.data_keys', 'insert') as "keeps_keys!",
                  has_function_privilege('public.note_measure(text, text, integer, integer, text)', 'execute')
                      and has_function_privilege('public.note_revocation(text, text, timestamptz, text)', 'execute')
                      as "handles_incidents!""#
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let (able, missing) = match role {
        DbRole::Reader => (login.reads, "may not read, but is the reader"),
        DbRole::Writer => (login.writes, "may not write, but is the writer"),
        DbRole::Authn => (login.authenticates, "may not look up credentials"),
        DbRole::Keys => (login.keeps_keys, "may not read and add data keys"),
        DbRole::Incidents => (login.handles_incidents, "may not revoke credentials and set overrides"),
    };
    if able { Ok(()) } else { Err(UnfitDatabase::MissingPrivilege { login: login.name, missing }) }
}

/// Rejects a database with a tenant table that lacks forced row-level security, or that has
/// another policy than the one of the migrations (AUTHZ-07).
pub(crate) async fn check_row_security(connection: &mut PgConnection) -> Result<(), UnfitDatabase> {
    let unprotected = sqlx::query_scalar!(
        r#"select c.relname::text as "name!"
           from pg_class c join pg_attribute a on a.attrelid = c.oid
           where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and a.attname = 'tenant_id'
             and (not (c.relrowsecurity and c.relforcerowsecurity)
                  -- Policies add up, so there must be this one and no other.
                  or (select string_agg(concat(pg_get_expr(p.polqual, p.polrelid),
                                        pg_get_expr(p.polwithcheck, p.polrelid)), ';')
                      from pg_policy p where p.polrelid = c.oid)
                     is distinct from '(tenant_id = current_tenant())(tenant_id = current_tenant())')
           order by 1 limit 1"#
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(DbError::from)?;
    unprotected.map_or(Ok(()), |table| Err(UnfitDatabase::RowSecurity { table }))
}

/// Rejects a login that could change the audit trail, and a database without the triggers that stop
/// accidental changes of it by any login (LOG-05).
pub(crate) async fn check_append_only(connection: &mut PgConnection) -> Result<(), UnfitDatabase> {
    let login = sqlx::query!(
        r#"select current_user::text as "name!",
                  exists (select from pg_class c where c.relnamespace = 'public'::regnamespace
                                                   and c.relname in ('audit_events', 'audit_journal', 'audit_seals',
                                                                     'audit_horizon')
                                                   and (has_any_column_privilege(c.oid, 'insert, update')
                                                        or has_table_privilege(c.oid, 'delete, truncate, trigger')))
                  or has_function_privilege('public.write_audit_event(public.audit_events)', 'execute') as "rewrites!""#
    );
    let login = login.fetch_one(&mut *connection).await.map_err(DbError::from)?;
    if login.rewrites {
        let excess = "may change the audit trail, which no login of the service may";
        return Err(UnfitDatabase::Privileged { login: login.name, excess });
    }
    let unprotected = sqlx::query_scalar!(
        r#"select name as "name!" from unnest(array['audit_events', 'audit_journal', 'audit_seals']) as name
           where not exists (
               select from pg_trigger t
               -- In force for ordinary sessions, before updates, deletes and truncations: 2 + 8 + 16 + 32.
               where t.tgrelid = to_regclass('public.' || name) and t.tgname = 'append_only'
                 and t.tgenabled in ('O', 'A') and t.tgtype = 58
                 and t.tgfoid = to_regproc('public.audit_is_append_only'))
           order by 1 limit 1"#
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(DbError::from)?;
    unprotected.map_or(Ok(()), |table| Err(UnfitDatabase::AppendOnly { table }))
}
