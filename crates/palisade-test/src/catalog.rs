//! The database catalog: whether every tenant table is isolated (AUTHZ-07), and whether every login
//! has exactly the reviewed rights (AUTHZ-08).
//!
//! The suite of a service checks its own schema with these two functions.

use std::{env, fs, path::Path};

use palisade::{authz::sessions::SESSIONS, dev::SOURCES};
use secrecy::SecretString;

use crate::{api_keys, query};

/// Each row of each query is a violation. The queries cover a new table or function at once.
const VIOLATIONS: [&str; 13] = [
    // `NAMES` lists the tables without a tenant.
    "select c.relname || ' has no tenant_id: add it, or the table to NAMES'
     from user_tables c where not exists (
         select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and a.attnotnull)",
    "select c.relname || ' is not under forced row-level security'
     from user_tables c where not (c.relrowsecurity and c.relforcerowsecurity)",
    // Permissive policies are combined with OR: a second one could allow what the first denies.
    "select c.relname || ' must have the policy tenant_isolation and no other'
     from user_tables c where (
         select coalesce(string_agg(concat_ws(' ', p.polname, p.polcmd, p.polpermissive, p.polroles::text,
                                              pg_get_expr(p.polqual, p.polrelid),
                                              pg_get_expr(p.polwithcheck, p.polrelid)), ';'), '')
         from pg_policy p where p.polrelid = c.oid
     ) <> 'tenant_isolation * t {0} (tenant_id = palisade.current_tenant()) (tenant_id = palisade.current_tenant())'",
    "select c.relname || ': its key must begin with tenant_id'
     from user_tables c where not exists (
         select from pg_constraint k join pg_attribute a on a.attrelid = c.oid and a.attnum = k.conkey[1]
         where k.conrelid = c.oid and k.contype = 'p' and a.attname = 'tenant_id')",
    // A foreign key without the tenant could refer to a row of another tenant.
    "select format('%s: %s must refer by tenant_id too', c.relname, k.conname)
     from user_tables c join pg_constraint k on k.conrelid = c.oid and k.contype = 'f'
     where not exists (
         select from unnest(k.conkey, k.confkey) as pair (ours, theirs)
         join pg_attribute a on a.attrelid = k.conrelid and a.attnum = pair.ours and a.attname = 'tenant_id'
         join pg_attribute b on b.attrelid = k.confrelid and b.attnum = pair.theirs
                              and b.attname in ('tenant_id', 'of_tenant'))
       -- The register of index keys, which all tenants share.
       and k.confrelid <> 'palisade.index_keys'::regclass",
    // A unique index without the tenant reveals to one tenant the values of another.
    "select format('%s: the unique index %s must begin with tenant_id', c.relname, i.indexrelid::regclass)
     from user_tables c join pg_index i on i.indrelid = c.oid and i.indisunique
     left join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
     where a.attname is distinct from 'tenant_id'",
    "select c.relname || ': a view must have security_invoker, else it reads with its owner''s rights'
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
       and (c.relkind = 'm' or c.relkind = 'v' and not coalesce('security_invoker=true' = any (c.reloptions), false))",
    "select p.proname || ' runs with its owner''s rights and no fixed search_path'
     from user_functions p
     where p.prosecdef and not exists (select from unnest(p.proconfig) setting where setting like 'search_path=%')",
    "select p.proname || ' can be called by PUBLIC'
     from user_functions p
     where p.proacl is null or exists (select from aclexplode(p.proacl) right_ where right_.grantee = 0)",
    // Only the kernel sets the tenant. The kernel checks the statements of a service, and not the
    // functions of its migrations.
    "select p.proname || ' is not of the kernel: it must not be security definer, and must not change settings'
     from user_functions p
     where p.pronamespace <> 'palisade'::regnamespace
       and (p.prosecdef or p.prosrc ~* 'set_config|pg_settings|\\mset\\s+(local|session)\\M'
            or exists (select from unnest(p.proconfig) setting where setting like 'app.%'))",
    "select c.relname || ' is sealed: it needs the trigger that deletes the row key of a deleted row'
     from user_tables c
     where exists (select from pg_attribute a where a.attrelid = c.oid and a.atttypid = 'palisade.sealed'::regtype)
       and c.oid <> 'palisade.row_keys'::regclass
       and not exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgtype = 9 and t.tgqual is null
                       and t.tgfoid = 'palisade.delete_row_key'::regproc)",
    "select c.relname || ' is not tracked: it needs the trigger of palisade.isolate_tenants that collects changes'
     from user_tables c
     where c.relnamespace <> 'palisade'::regnamespace
       and not exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgtype = 25 and t.tgqual is null
                       and t.tgattr::text = '' and t.tgfoid = 'palisade.collect_change'::regproc)",
    "select format('%s.%s: the kernel must not refer to tables of the service', c.relname, k.conname)
     from user_tables c join pg_constraint k on k.conrelid = c.oid and k.contype = 'f'
     join pg_class f on f.oid = k.confrelid
     where c.relnamespace = 'palisade'::regnamespace and f.relnamespace <> 'palisade'::regnamespace",
];

/// The tenant tables, and the functions of kernel and service.
const NAMES: &str = "
    with user_tables as (
        select c.* from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
          -- Tables without a tenant: migrations, settings of operators, key registers, the digests of the
          -- audit trail, and those of sign-ins and logout tokens that were used. No operation of the API reads them.
          and not (n.nspname in ('palisade', 'public') and c.relname = '_sqlx_migrations')
          and not (n.nspname = 'palisade'
                   and c.relname in ('tenants', 'tenant_ids', 'retained_rows', 'revocations', 'tenant_quotas', 'overrides',
                                     'data_keys', 'index_keys',
                                     'master_keys', 'audit_journal', 'audit_seals', 'audit_horizon',
                                     'audit_pending', 'used_once'))
    ), user_functions as (
        select p.* from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    ) ";

/// Every table, view or function that does not keep tenants apart (AUTHZ-07), each with its reason.
pub async fn violations(url: &SecretString) -> Vec<String> {
    let mut found = Vec::new();
    for violation in VIOLATIONS {
        found.extend(query(url, &format!("{NAMES}{violation} order by 1")).await);
    }
    found
}

/// Every right of a role other than the owner, one per line.
const EVERY_RIGHT: &str = "
    with grants as (
        select format('table %s.%s', n.nspname, c.relname) as object, a.grantee, a.privilege_type as privilege,
        a.is_grantable
        from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) a
        where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and a.grantee <> c.relowner
        union all
        select format('table %s.%s (%s)', n.nspname, c.relname, t.attname), a.grantee, a.privilege_type, a.is_grantable
        from pg_attribute t join pg_class c on c.oid = t.attrelid join pg_namespace n on n.oid = c.relnamespace,
             aclexplode(t.attacl) a
        -- Rights to a dropped column stay in the catalog and mean nothing.
        where not t.attisdropped and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
        union all
        select format('function %s.%s', n.nspname, p.proname), a.grantee, a.privilege_type, a.is_grantable
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace,
             aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and a.grantee <> p.proowner
        union all
        select 'schema ' || n.nspname, a.grantee, a.privilege_type, a.is_grantable
        from pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
        where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and a.grantee <> n.nspowner
        union all
        select 'database', a.grantee, a.privilege_type, a.is_grantable
        from pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
        where d.datname = current_database() and a.grantee <> d.datdba
        union all
        select 'objects created later', a.grantee, a.privilege_type, a.is_grantable
        from pg_default_acl d, aclexplode(d.defaclacl) a
        union all
        select 'role ' || pg_get_userbyid(m.roleid), m.member, 'member', m.admin_option
        from pg_auth_members m where pg_get_userbyid(m.member) ~ '^app_'
        union all
        select 'cluster', r.oid, attribute, false
        from pg_roles r, lateral (values (case when r.rolsuper then 'superuser' end),
                                         (case when r.rolbypassrls then 'bypassrls' end),
                                         (case when r.rolcreaterole then 'createrole' end),
                                         (case when r.rolcreatedb then 'createdb' end),
                                         (case when r.rolreplication then 'replication' end)) as v (attribute)
        where r.rolname ~ '^app_' and attribute is not null
    )
    select format('%-13s %s: %s', case grantee when 0 then 'PUBLIC' else pg_get_userbyid(grantee) end, object,
                  string_agg(lower(privilege) || case when is_grantable then ' (with grant option)' else '' end, ', '
                             order by privilege))
    from grants
    -- Without the administrator of the server.
    where grantee = 0 or pg_get_userbyid(grantee) !~ '^(pg_|postgres$)'
    group by grantee, object order by 1";

/// Asserts that the logins have the rights that the kernel's lists and this file list, and no other.
/// The file lists those on the schema of the service.
///
/// `UPDATE_SNAPSHOTS=1` rewrites the file, and those of a kernel whose sources are in this project.
pub async fn assert_rights(url: &SecretString, service_file: &str) {
    let rights = query(url, EVERY_RIGHT).await;
    let (service, kernel): (Vec<&String>, Vec<&String>) =
        rights.iter().partition(|right| right.contains(" public.") || right.contains(" schema public:"));
    let package = env::current_dir().unwrap();
    let has_kernel = package.starts_with(SOURCES) || Path::new(SOURCES).starts_with(&package);
    assert_listed(service_file, &service, true);
    // Rights on what the migrations of a feature create are in its folder.
    let features = [
        ("api_keys", "1001_api_keys.sql", api_keys::are_enabled()),
        ("sessions", "2001_sessions.sql", !SESSIONS.is_empty()),
    ];
    let mut of_core = kernel;
    for (folder, migration, is_on) in features {
        let folder = format!("{SOURCES}/migrations/{folder}");
        let created = fs::read_to_string(format!("{folder}/{migration}")).unwrap();
        let is_of_feature = |right: &&String| {
            let mut words = right.split([' ', ':']).filter(|word| !word.is_empty()).skip(1);
            let create = format!("create {} {}", words.next().unwrap(), words.next().unwrap());
            [" (", "("].iter().any(|end| created.contains(&format!("{create}{end}")))
        };
        let (optional, rest): (Vec<&String>, Vec<&String>) = of_core.into_iter().partition(is_of_feature);
        of_core = rest;
        if is_on {
            assert_listed(&format!("{folder}/rights.txt"), &optional, has_kernel);
        }
    }
    assert_listed(&format!("{SOURCES}/rights.txt"), &of_core, has_kernel);
}

/// Asserts that a file lists exactly these rights.
fn assert_listed(file: &str, rights: &[&String], may_rewrite: bool) {
    let rights: String = rights.iter().flat_map(|right| [right.as_str(), "\n"]).collect();
    if may_rewrite && env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(file, &rights).unwrap();
    }
    let listed = fs::read_to_string(file).unwrap_or_default();
    let unlisted: Vec<&str> = rights.lines().filter(|right| !listed.lines().any(|row| row == *right)).collect();
    let missing: Vec<&str> = listed.lines().filter(|right| !rights.lines().any(|row| row == *right)).collect();
    assert!(
        rights == listed,
        "the rights in the database differ from {file}.\nnot listed: {unlisted:#?}\nmissing: {missing:#?}\n\
         If a migration intends this: `UPDATE_SNAPSHOTS=1 cargo test authz_08`, and review the difference."
    );
}
