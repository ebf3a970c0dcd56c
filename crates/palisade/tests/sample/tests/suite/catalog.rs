//! The database catalog: every tenant table is isolated (AUTHZ-07), and every login has exactly the
//! reviewed rights (AUTHZ-08, `rights.txt` of kernel and sample).

use crate::support::{SERVICE, catalog, run};

#[tokio::test]
async fn authz_07_violations_of_tenant_isolation_are_found() {
    let isolated_table =
        "create table stray (tenant_id uuid not null, id uuid not null, note_id uuid, primary key (tenant_id, id));
                 select palisade.isolate_tenants('stray');";
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
        (
            "drop trigger collect_change on stray",
            Some("stray is not tracked: it needs the trigger of palisade.isolate_tenants that collects changes"),
        ),
        ("alter table stray drop constraint stray_pkey", Some("stray: its key must begin with tenant_id")),
        (
            "alter table notes add unique (tenant_id, id, status);
             alter table notes add unique (id);
             alter table stray add foreign key (note_id) references notes (id)",
            Some("stray: stray_note_id_fkey must refer by tenant_id too"),
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
            "create view seen as select * from notes",
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
                                          foreign key (tenant_id, id) references notes (tenant_id, id))",
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
        let all = catalog::violations(&urls.owner).await;
        match found {
            Some(found) => assert!(all.iter().any(|violation| violation == found), "{change}: {all:#?}"),
            None => assert_eq!(all, Vec::<String>::new()),
        }
    }
}

#[tokio::test]
async fn authz_08_each_login_has_the_rights_that_are_listed_and_no_other() {
    catalog::assert_rights(&SERVICE.database().await.owner, "rights.txt").await;
}
