use sqlx::PgConnection;

use super::{StoreError, UnfitDatabase};

/// What a login is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    Read,
    Write,
    Authenticate,
    KeepKeys,
    HandleIncidents,
}

/// Refuses a login that could bypass row-level security or change the schema, or do what is another's duty (AUTHZ-08).
pub(super) async fn check(connection: &mut PgConnection, duty: Duty) -> Result<(), UnfitDatabase> {
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
    .map_err(StoreError::from)?;
    let excess = if login.superuser {
        "is a superuser, or can become one"
    } else if login.switched {
        "is another login in disguise"
    } else if login.bypasses_row_security {
        "bypasses row-level security, or can become a role that does"
    } else if login.administers {
        "may create roles or databases, or replicate"
    } else if login.owns_tables {
        "owns tables of the schema, so could switch row-level security off"
    } else if login.creates {
        "may create objects in the schema"
    } else if login.writes && duty == Duty::Read {
        "may write, and is the reader"
    } else if login.reads_business && duty == Duty::Authenticate {
        "may read business data, and is for credentials"
    } else if login.writes_more_than_key_use && duty == Duty::Authenticate {
        "may write more than the use of keys, and is for credentials"
    } else if login.reads_hashes && duty != Duty::Authenticate {
        "may read the hashes of API keys"
    } else if login.raises_keys && duty != Duty::Authenticate {
        "may change what API keys may do"
    } else if login.does_more_than_keys && duty == Duty::KeepKeys {
        "may reach more than data keys, and is for those"
    } else if login.reaches_data_keys && duty != Duty::KeepKeys {
        "may reach data keys, which another login keeps"
    } else if login.destroys_data_keys {
        "may change or destroy data keys, which is an operator's duty"
    } else if login.operates && duty != Duty::HandleIncidents {
        "may revoke credentials or set quotas, which is an operator's duty"
    } else {
        return Ok(());
    };
    Err(UnfitDatabase::Privileged { login: login.name, excess })
}

/// Refuses a login of incidents that reaches more than the functions for those.
pub(super) async fn check_tables(connection: &mut PgConnection, duty: Duty) -> Result<(), UnfitDatabase> {
    if duty != Duty::HandleIncidents {
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
    let login = login.fetch_one(&mut *connection).await.map_err(StoreError::from)?;
    let excess = "may reach tables, and is for incidents";
    if login.reaches_tables { Err(UnfitDatabase::Privileged { login: login.name, excess }) } else { Ok(()) }
}

/// Refuses a login that lacks what its duty needs: with it every call would fail. The schema must be there.
pub(super) async fn check_powers(connection: &mut PgConnection, duty: Duty) -> Result<(), UnfitDatabase> {
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
    .map_err(StoreError::from)?;
    let (able, lacks) = match duty {
        Duty::Read => (login.reads, "may not read, and is the reader"),
        Duty::Write => (login.writes, "may not write, and is the writer"),
        Duty::Authenticate => (login.authenticates, "may not look up credentials"),
        Duty::KeepKeys => (login.keeps_keys, "may not keep data keys"),
        Duty::HandleIncidents => (login.handles_incidents, "may not revoke or throttle"),
    };
    if able { Ok(()) } else { Err(UnfitDatabase::Powerless { login: login.name, lacks }) }
}

/// Refuses a database in which some table with a tenant is not kept apart by forced row-level security and the one policy (AUTHZ-07).
pub(super) async fn check_row_security(connection: &mut PgConnection) -> Result<(), UnfitDatabase> {
    let open = sqlx::query_scalar!(
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
    .map_err(StoreError::from)?;
    open.map_or(Ok(()), |table| Err(UnfitDatabase::RowSecurity { table }))
}

/// Refuses a database whose audit trail this login could change, or anybody by mistake (LOG-05).
pub(super) async fn check_append_only(connection: &mut PgConnection) -> Result<(), UnfitDatabase> {
    let login = sqlx::query!(
        r#"select current_user::text as "name!",
                  exists (select from pg_class c where c.relnamespace = 'public'::regnamespace
                                                   and c.relname in ('audit_events', 'audit_journal', 'audit_seals',
                                                                     'audit_horizon')
                                                   and (has_any_column_privilege(c.oid, 'insert, update')
                                                        or has_table_privilege(c.oid, 'delete, truncate, trigger')))
                  or has_function_privilege('public.write_audit_event(public.audit_events)', 'execute') as "rewrites!""#
    );
    let login = login.fetch_one(&mut *connection).await.map_err(StoreError::from)?;
    if login.rewrites {
        let excess = "may change the audit trail, which is nobody's duty";
        return Err(UnfitDatabase::Privileged { login: login.name, excess });
    }
    let open = sqlx::query_scalar!(
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
    .map_err(StoreError::from)?;
    open.map_or(Ok(()), |table| Err(UnfitDatabase::AppendOnly { table }))
}
