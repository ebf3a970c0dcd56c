//! Checks of the database and of a login before the service serves with them.
//!
//! In: a connection of the login, and its role. Out: the first deviation, as an [`UnfitDatabase`]
//! that says what to do. A login needs exactly the privileges of its role (AUTHZ-08), tables need
//! row-level security (AUTHZ-07), and the audit trail must be append-only (LOG-05). `rotating_pool`
//! calls these at startup and before each reload of a password.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use super::{
    DbError, UnfitDatabase,
    migrate::{Folder, KERNEL, may_contain},
};
use crate::package;

/// The role of roles.sql that a login of the service has.
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

/// Rights that an error names at most.
const MAX_NAMED: usize = 5;

impl DbRole {
    fn name(self) -> &'static str {
        match self {
            Self::Reader => "app_reader",
            Self::Writer => "app_writer",
            Self::Authn => "app_authn",
            Self::Keys => "app_keys",
            Self::Incidents => "app_incidents",
        }
    }

    /// The listed rights of this role in these folders of the kernel and in the service, one
    /// privilege each, such as `table orders (status): update`.
    fn listed_rights(self, folders: impl Iterator<Item = &'static Folder>) -> BTreeSet<String> {
        let lines = folders.map(|folder| folder.rights).chain([package::rights()]).flat_map(str::lines);
        let rights = lines.filter_map(|line| line.strip_prefix(self.name())?.trim_start().split_once(": "));
        // The privileges on the database depend on how the administrator created it.
        let checked = rights.filter(|(object, _)| *object != "database");
        checked
            .flat_map(|(object, privileges)| {
                privileges.split(", ").map(move |privilege| format!("{object}: {privilege}"))
            })
            .collect()
    }
}

/// Rejects a login that has other rights than those listed for its role, by grants, ownership,
/// attributes or memberships, or that lacks the time-outs of roles.sql (AUTHZ-08). Needs the schema
/// of this version. If the database is ahead, rights on tables, columns and functions that this
/// version does not know are no excess.
///
/// Rights of a feature that this build is without are not required. They are no excess either:
/// another build may have created its tables, as [`check_version`](super::migrate::check_version)
/// allows.
pub(crate) async fn check_rights(
    connection: &mut PgConnection,
    role: DbRole,
    is_ahead: bool,
) -> Result<(), UnfitDatabase> {
    let rights = sqlx::query!(
        r#"with schemas as (
               select oid, nspname from pg_namespace where nspname in ('palisade', 'public')
           ), tables as (
               select c.oid, format('%s.%s', s.nspname, c.relname) as name
               from pg_class c join schemas s on s.oid = c.relnamespace where relkind in ('r', 'p', 'v', 'm', 'f')
           )
           -- Also of every role that it could become.
           select current_user::text as "login!", 'cluster: ' || attribute as "granted!"
           from pg_roles r, lateral (values (case when r.rolsuper then 'superuser' end),
                                            (case when r.rolbypassrls then 'bypassrls' end),
                                            (case when r.rolcreaterole then 'createrole' end),
                                            (case when r.rolcreatedb then 'createdb' end),
                                            (case when r.rolreplication then 'replication' end)) as v (attribute)
           where attribute is not null and pg_has_role(r.oid, 'member')
           union
           select current_user, 'role ' || rolname || ': member' from pg_roles
           where pg_has_role(oid, 'member') and rolname not in (current_user, $1)
           union
           select current_user, 'session: set role' where session_user <> current_user
           union
           -- Those of the connection's options are lost if a pooler drops the options.
           select current_user, format('session: without %s', timeout)
           from unnest(array['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout']) as timeout
           -- The setting for this database wins over the one for all.
           where coalesce((select setting !~ '=[1-9]'
                           from pg_db_role_setting s join pg_roles r on r.oid = s.setrole
                           left join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) as setting
                           where r.rolname = current_user and starts_with(setting, timeout || '=')
                             and (s.setdatabase = 0 or d.datname = current_database())
                           order by s.setdatabase desc limit 1), true)
           union
           -- Such as session_replication_role, which switches triggers off.
           select current_user, format('parameter %s: %s', parname, privilege)
           from pg_parameter_acl, unnest(array['set', 'alter system']) as privilege
           where has_parameter_privilege(parname, privilege)
           union
           select current_user, format('schema %s: %s', nspname, privilege)
           from schemas, unnest(array['create', 'usage']) as privilege
           where has_schema_privilege(oid, privilege)
           union
           select current_user, format('table %s: %s', name, privilege)
           from tables, unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger'])
                        as privilege
           where has_table_privilege(tables.oid, privilege)
           union
           select current_user, format('table %s (%s): %s', name, attname, privilege)
           from tables join pg_attribute a on a.attrelid = tables.oid and a.attnum > 0 and not a.attisdropped,
                unnest(array['select', 'insert', 'update', 'references']) as privilege
           where has_column_privilege(tables.oid, attnum, privilege)
             and not has_table_privilege(tables.oid, privilege)
           union
           select current_user, format('function %s.%s: execute', s.nspname, p.proname)
           from pg_proc p join schemas s on s.oid = p.pronamespace
           where has_function_privilege(p.oid, 'execute')
             and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
           order by 2"#,
        role.name()
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let login = rights.first().map(|right| right.login.clone()).unwrap_or_default();
    let granted: BTreeSet<String> = rights.into_iter().map(|right| right.granted).collect();
    let name = |rights: Vec<String>| rights.into_iter().take(MAX_NAMED).collect::<Vec<_>>().join("; ");
    let is_new = |right: &str| {
        let object = right.rsplit_once(": ").map_or(right, |(object, _)| object);
        ["table ", "function "].iter().any(|kind| object.starts_with(kind)) && !may_contain(object)
    };
    let listed = role.listed_rights(KERNEL.iter());
    let excess = granted.difference(&listed).filter(|right| !(is_ahead && is_new(right)));
    let excess: Vec<_> = excess.cloned().collect();
    if !excess.is_empty() {
        return Err(UnfitDatabase::Privileged { login, excess: name(excess) });
    }
    let required = role.listed_rights(KERNEL.iter().filter(|folder| folder.is_on));
    let missing: Vec<_> = required.difference(&granted).cloned().collect();
    if missing.is_empty() { Ok(()) } else { Err(UnfitDatabase::MissingPrivilege { login, missing: name(missing) }) }
}

/// Rejects a connection through a pooler that does not keep what this login needs of a session.
///
/// A pooler drops the connection's options, so the time-out then has another source than the client.
/// `app_authn` listens for changes of credentials (AUTHN-11), which takes a session of its own. The
/// others prepare statements: in transaction mode they work if the pooler gives them its own names.
pub(crate) async fn check_session(connection: &mut PgConnection, role: DbRole) -> Result<(), UnfitDatabase> {
    let session = "select current_user::text, source = 'client',
                          exists (select from pg_prepared_statements where starts_with(name, 'sqlx_s_'))
                   from pg_settings where name = 'statement_timeout'";
    let (login, is_direct, keeps_names): (String, bool, bool) =
        sqlx::query_as(session).fetch_one(connection).await.map_err(DbError::from)?;
    match role {
        _ if is_direct => Ok(()),
        DbRole::Authn => Err(UnfitDatabase::Pooler { login, need: "give its URL the address of PostgreSQL itself" }),
        _ if keeps_names => {
            let need = "it must be PgBouncer 1.21 or later in transaction mode, with max_prepared_statements above 0";
            Err(UnfitDatabase::Pooler { login, need })
        }
        _ => Ok(()),
    }
}

/// Rejects a database with a tenant table that lacks forced row-level security, or that has
/// another policy than the one of the migrations (AUTHZ-07).
pub(crate) async fn check_row_security(connection: &mut PgConnection) -> Result<(), UnfitDatabase> {
    let unprotected = sqlx::query_scalar!(
        r#"select format('%s.%s', n.nspname, c.relname) as "name!"
           from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
           where n.nspname in ('palisade', 'public') and c.relkind in ('r', 'p') and a.attname = 'tenant_id'
             and (not (c.relrowsecurity and c.relforcerowsecurity)
                  -- Policies add up, so there must be this one and no other.
                  or (select string_agg(concat(pg_get_expr(p.polqual, p.polrelid),
                                        pg_get_expr(p.polwithcheck, p.polrelid)), ';')
                      from pg_policy p where p.polrelid = c.oid)
                     is distinct from '(tenant_id = palisade.current_tenant())(tenant_id = palisade.current_tenant())')
           order by 1 limit 1"#
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(DbError::from)?;
    unprotected.map_or(Ok(()), |table| Err(UnfitDatabase::RowSecurity { table }))
}

/// Rejects a database without the triggers that stop accidental changes of the audit trail by any
/// login (LOG-05).
pub(crate) async fn check_append_only(connection: &mut PgConnection) -> Result<(), UnfitDatabase> {
    let unprotected = sqlx::query_scalar!(
        r#"select name as "name!" from unnest(array['audit_events', 'audit_journal', 'audit_seals']) as name
           where not exists (
               select from pg_trigger t
               -- In force for ordinary sessions, before updates, deletes and truncations: 2 + 8 + 16 + 32.
               where t.tgrelid = to_regclass('palisade.' || name) and t.tgname = 'append_only'
                 and t.tgenabled in ('O', 'A') and t.tgtype = 58
                 and t.tgfoid = to_regproc('palisade.reject_audit_change'))
           order by 1 limit 1"#
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(DbError::from)?;
    unprotected.map_or(Ok(()), |table| Err(UnfitDatabase::AppendOnly { table }))
}

/// Rejects a database with a table of the service whose changes the audit trail would miss (LOG-05).
pub(crate) async fn check_tracked_changes(connection: &mut PgConnection) -> Result<(), UnfitDatabase> {
    let untracked = sqlx::query_scalar!(
        r#"select c.relname::text as "name!"
           from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
           where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
             and not exists (
               select from pg_trigger t
               -- In force for ordinary sessions, after each updated or deleted row: 1 + 8 + 16.
               where t.tgrelid = c.oid and t.tgenabled in ('O', 'A') and t.tgtype = 25 and t.tgqual is null
                 and t.tgattr::text = '' and t.tgfoid = to_regproc('palisade.collect_change'))
           order by 1 limit 1"#
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(DbError::from)?;
    untracked.map_or(Ok(()), |table| Err(UnfitDatabase::UntrackedChanges { table }))
}

/// Rejects a database with other sealed columns, blind indexes or triggers for row keys than the
/// registered ones: a rotation would leave them out (CRYPTO-05), or deleted rows their keys behind
/// (CRYPTO-08).
pub(crate) async fn check_sealed_columns(
    connection: &mut PgConnection,
    registered: &BTreeSet<String>,
) -> Result<(), UnfitDatabase> {
    let found = sqlx::query_scalar!(
        r#"select format('%s.%s (%s)', c.relname, a.attname, t.typname) as "name!"
           from pg_class c join pg_attribute a on a.attrelid = c.oid and not a.attisdropped
           join pg_type t on t.oid = a.atttypid
           where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
             and t.typnamespace = to_regnamespace('palisade') and t.typname in ('sealed', 'blind_index')
           union
           select c.relname || ' (delete_row_key)' from pg_trigger t join pg_class c on c.oid = t.tgrelid
           -- In force for ordinary sessions, after each deleted row: 1 + 8.
           where t.tgfoid = to_regproc('palisade.delete_row_key') and t.tgenabled in ('O', 'A') and t.tgtype = 9
             and t.tgqual is null"#
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let found: BTreeSet<String> = found.into_iter().collect();
    let unregistered = found.difference(registered).map(|name| format!("{name} is not registered"));
    let missing = registered.difference(&found).map(|name| format!("{name} is missing"));
    let differences: Vec<String> = unregistered.chain(missing).take(MAX_NAMED).collect();
    if differences.is_empty() { Ok(()) } else { Err(UnfitDatabase::SealedColumns(differences.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authz_08_rights_of_a_feature_are_required_only_with_it() {
        for role in [DbRole::Reader, DbRole::Writer, DbRole::Authn] {
            let names_api_keys =
                |rights: BTreeSet<String>| rights.iter().any(|right| right.contains("palisade.api_keys"));
            assert!(names_api_keys(role.listed_rights(KERNEL.iter())), "{role:?}");
            let required = role.listed_rights(KERNEL.iter().filter(|folder| folder.is_on));
            assert_eq!(names_api_keys(required), cfg!(feature = "api_keys"), "{role:?}");
        }
    }
}
