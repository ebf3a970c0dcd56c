//! The database catalog: tables that do not isolate tenants are found (AUTHZ-07), and every login has exactly the
//! reviewed rights (AUTHZ-08, `rights.txt` of kernel and service).

use palisade::dev::SOURCES;

use crate::support::{SERVICE, control_suite::violations, query, run};

/// The rights of the logins on the schema of the service, and all others.
const SERVICE_RIGHTS: &str = "deploy/rights.txt";

#[tokio::test]
async fn authz_07_violations_of_tenant_isolation_are_found() {
    let isolated_table =
        "create table stray (tenant_id uuid not null, id uuid not null, order_id uuid, primary key (tenant_id, id));
                 alter table stray enable row level security; alter table stray force row level security;
                 create policy tenant_isolation on stray
                     using (tenant_id = palisade.current_tenant()) with check (tenant_id = palisade.current_tenant());";
    for (change, found) in [
        ("", None),
        ("alter table stray no force row level security", Some("stray is not under forced row-level security")),
        ("alter table stray disable row level security", Some("stray is not under forced row-level security")),
        ("alter table stray alter tenant_id drop not null", None),
        ("create policy too on stray using (true)", Some("stray must have the policy tenant_isolation and no other")),
        (
            "alter policy tenant_isolation on stray using (tenant_id = palisade.current_tenant() or true)",
            Some("stray must have the policy tenant_isolation and no other"),
        ),
        ("alter table stray drop constraint stray_pkey", Some("stray: its key must begin with tenant_id")),
        (
            "alter table orders add unique (tenant_id, id, status);
             alter table orders add unique (id);
             alter table stray add foreign key (order_id) references orders (id)",
            Some("stray: stray_order_id_fkey must refer by tenant_id too"),
        ),
        (
            "create unique index stray_ids on stray (id)",
            Some("stray: the unique index stray_ids must begin with tenant_id"),
        ),
        (
            "create table stray_too (id uuid primary key)",
            Some("stray_too has no tenant_id: add it, or the table to NAMES"),
        ),
        (
            "create view seen as select * from orders",
            Some("seen: a view must have security_invoker, else it reads with its owner's rights"),
        ),
        (
            "create function power() returns int language sql security definer return 1",
            Some("power runs with its owner's rights and no fixed search_path"),
        ),
        ("create function exposed() returns int language sql return 1", Some("exposed can be called by PUBLIC")),
        (
            "create function enter() returns text language sql as 'select set_config(null, null, true)'",
            Some("enter is not of the kernel: it must not be security definer, and must not change settings"),
        ),
        (
            "create function power() returns int language sql security definer set search_path = pg_catalog return 1",
            Some("power is not of the kernel: it must not be security definer, and must not change settings"),
        ),
        (
            "alter table stray add secret palisade.sealed",
            Some("stray is sealed: it needs the trigger that deletes the row key of a deleted row"),
        ),
        (
            "create table palisade.stray (tenant_id uuid primary key, id uuid,
                                          foreign key (tenant_id, id) references orders (tenant_id, id))",
            Some("stray.stray_tenant_id_id_fkey: the kernel must not refer to tables of the service"),
        ),
    ] {
        let urls = SERVICE.database().await;
        let sql = format!("{isolated_table} {change}");
        // PostgreSQL itself refuses to drop `not null` from a column of the primary key.
        if run(&urls.owner, &sql).await.is_err() {
            assert!(change.contains("drop not null"), "{change}");
            continue;
        }
        let all = violations(&urls.owner).await;
        match found {
            Some(found) => assert!(all.iter().any(|violation| violation == found), "{change}: {all:#?}"),
            None => assert_eq!(all, Vec::<String>::new()),
        }
    }
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

#[tokio::test]
async fn authz_08_each_login_has_the_rights_that_are_listed_and_no_other() {
    let rights = query(&SERVICE.database().await.owner, EVERY_RIGHT).await;
    let (service, kernel): (Vec<&String>, Vec<&String>) =
        rights.iter().partition(|right| right.contains(" public.") || right.contains(" schema public:"));
    for (file, rights) in [(SERVICE_RIGHTS, service), (&*format!("{SOURCES}/rights.txt"), kernel)] {
        let rights: String = rights.into_iter().flat_map(|right| [right, "\n"]).collect();
        // The rights of a kernel without its sources here are not the project's to change.
        let is_here = file == SERVICE_RIGHTS || std::fs::exists("crates/palisade").unwrap();
        if is_here && std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(file, &rights).unwrap();
        }
        let listed = std::fs::read_to_string(file).unwrap_or_default();
        let unlisted: Vec<&str> = rights.lines().filter(|right| !listed.lines().any(|row| row == *right)).collect();
        let missing: Vec<&str> = listed.lines().filter(|right| !rights.lines().any(|row| row == *right)).collect();
        assert!(
            rights == listed,
            "the rights in the database differ from {file}.\nnot listed: {unlisted:#?}\nmissing: {missing:#?}\n\
             If a migration intends this: `UPDATE_SNAPSHOTS=1 cargo test authz_08`, and review the difference."
        );
    }
}

#[tokio::test]
async fn authz_08_auditor_reads_billing_tables_of_one_tenant_and_no_personal_data() {
    let urls = SERVICE.database().await;
    for table in ["orders", "invoices", "payments"] {
        assert_ne!(query(&urls.auditor, &format!("select count(*)::text from {table}")).await, ["0"], "{table}");
        let change = format!("delete from {table}");
        assert!(run(&urls.auditor, &change).await.unwrap_err().to_string().contains("permission denied"), "{table}");
    }
    for table in ["customers", "palisade.row_keys", "palisade.data_keys", "palisade.idempotency_keys"] {
        let read = format!("select count(*) from {table}");
        assert!(run(&urls.auditor, &read).await.unwrap_err().to_string().contains("permission denied"), "{table}");
    }
    let without_tenant = run(&urls.auditor, "select count(*) from orders having count(*) > 0").await.unwrap();
    assert_eq!(without_tenant, 0);
}
