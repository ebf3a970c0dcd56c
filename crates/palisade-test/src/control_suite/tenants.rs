//! Isolation of tenants in the database: each table by the catalog (AUTHZ-07), and each query by its
//! own filter (AUTHZ-03), which must hold even without row-level security.

use palisade::dev::database::Urls;
use secrecy::SecretString;

use super::{Fixture, Objects};
use crate::{ACME, Actor, GLOBEX, Operation, TestApp, query, run};

/// Each row of each query is a violation. The queries cover a new table or function at once.
const VIOLATIONS: [&str; 12] = [
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
    "select format('%s.%s: the kernel must not refer to tables of the service', c.relname, k.conname)
     from user_tables c join pg_constraint k on k.conrelid = c.oid and k.contype = 'f'
     join pg_class f on f.oid = k.confrelid
     where c.relnamespace = 'palisade'::regnamespace and f.relnamespace <> 'palisade'::regnamespace",
];

/// The tables and functions of kernel and service.
const NAMES: &str = "
    with user_tables as (
        select c.* from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
          -- Tables without a tenant: migrations, settings of operators, key registers, and the digests of the
          -- audit trail. No operation of the API reads them.
          and c.relname not in ('_sqlx_migrations', 'revocations', 'tenant_quotas', 'overrides', 'data_keys',
                                'index_keys', 'master_keys', 'audit_journal', 'audit_seals', 'audit_horizon')
    ), user_functions as (
        select p.* from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    ) ";

/// The tables and functions that do not keep tenants apart. The URL is the owner's.
pub async fn violations(url: &SecretString) -> Vec<String> {
    let mut found = Vec::new();
    for violation in VIOLATIONS {
        found.extend(query(url, &format!("{NAMES}{violation} order by 1")).await);
    }
    found
}

/// Every table of the database keeps tenants apart.
pub async fn tables_are_isolated(database: &Urls) {
    let found = violations(&database.owner).await;
    assert!(
        found.is_empty(),
        "{}\nMake the table as CONTRIBUTING.md shows: `palisade.isolate_tenants` adds policy and row-level security.",
        found.join("\n")
    );
}

/// Calls every operation while row-level security is off: the queries alone keep tenants apart. The
/// app must be used by no other test.
pub async fn queries_filter_tenants<F: Fixture>(app: &TestApp) {
    let globex = Objects::<F>::new(app, &GLOBEX);
    let all = Operation::all(app.service);
    let mut foreign = Vec::new();
    for operation in all.iter().filter(|operation| operation.has_object()) {
        foreign.push(globex.create(operation).await);
    }
    let tables = "select oid::regclass::text from pg_class where relrowsecurity and relkind in ('r', 'p')";
    for table in query(&app.database.owner, tables).await {
        run(&app.database.owner, &format!("alter table {table} disable row level security")).await.unwrap();
    }
    objects_stay_hidden(app, &globex).await;
    let admin = app.admin();
    for operation in all.iter().filter(|operation| !operation.has_object() && operation.row.scope.is_some()) {
        let reply = operation.call(&admin, "").await;
        let leaked = foreign.iter().find(|object| reply.text.contains(object.as_str()));
        assert!(
            leaked.is_none(),
            "{operation} returns an object of another tenant, {leaked:?}: its query must have \
             `tenant_id = t.tenant`\n{reply:#?}"
        );
        if operation.is_read() {
            let acme = ids(operation, &admin).await;
            let shared: Vec<String> = ids(operation, &globex.admin).await;
            let shared: Vec<&String> = shared.iter().filter(|id| acme.contains(id)).collect();
            assert!(shared.is_empty(), "{operation} lists objects of two tenants: {shared:?}");
        }
        if operation.takes_key {
            keys_are_of_one_tenant(app, operation, &globex.admin).await;
        }
    }
}

async fn objects_stay_hidden<F: Fixture>(app: &TestApp, globex: &Objects<F>) {
    let admin = app.admin();
    for operation in Operation::all_with_object(app.service) {
        let object = globex.create(&operation).await;
        let before = globex.read(&operation.path, &object).await;
        let reply = operation.call(&admin, &object).await;
        assert_eq!(
            reply.status, 404,
            "{operation} finds an object of another tenant without row-level security: its query must have \
             `tenant_id = t.tenant`\n{reply:#?}"
        );
        let after = globex.read(&operation.path, &object).await;
        assert_eq!(after, before, "{operation} changed an object of another tenant");
    }
}

/// The ids in the list that the operation returns.
async fn ids(operation: &Operation, actor: &Actor) -> Vec<String> {
    let page = operation.call(actor, "").await.ok(200);
    let items = page["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["id"].as_str()).map(str::to_owned).collect()
}

/// A stored response is not replayed to a subject of the same name in another tenant.
async fn keys_are_of_one_tenant(app: &TestApp, operation: &Operation, globex: &Actor) {
    let subject = app.service.person(&GLOBEX, app.service.admin_role()).subject;
    let namesake = app.bearer(app.forge().claim("sub", subject).claim("tenant_id", ACME.id.to_string()).token());
    for actor in [globex, &namesake] {
        let headers = [("idempotency-key", "same-in-both-tenants")];
        let reply = operation.call_with(actor, "", operation.example.as_ref(), &headers).await;
        assert_eq!(reply.status, 201, "{operation}: {reply:#?}");
        assert_eq!(reply.header("idempotent-replayed"), None, "{operation} replays the response of another tenant");
    }
}
