//! Isolation of tenants in the database: each table by the catalog (AUTHZ-07), and each query by its
//! own filter (AUTHZ-03), which must hold even without row-level security.

use std::collections::BTreeSet;

use palisade::dev::database::Urls;
use serde_json::Value;

use super::{Fixture, Objects};
use crate::{ACME, Actor, GLOBEX, Operation, Reply, TestApp, catalog::violations, operation::scalar, query, run};

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
        let object = globex.create(operation).await;
        let body = globex.read(&operation.path, &object).await;
        foreign.push((object, body));
    }
    let tables = "select oid::regclass::text from pg_class where relrowsecurity and relkind in ('r', 'p')";
    for table in query(&app.database.owner, tables).await {
        run(&app.database.owner, &format!("alter table {table} disable row level security")).await.unwrap();
    }
    objects_stay_hidden(app, &globex).await;
    let admin = app.admin();
    for operation in all.iter().filter(|operation| !operation.has_object() && operation.row.scope.is_some()) {
        let reply = operation.call(&admin, "").await;
        assert_shows_none(operation, &reply, &foreign);
        if operation.is_read() {
            filters_keep_tenants_apart(operation, &admin, &foreign).await;
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

/// Calls a list with each of its parameters: with values of the document and of foreign objects.
async fn filters_keep_tenants_apart(operation: &Operation, admin: &Actor, foreign: &[(String, Value)]) {
    for parameter in &operation.query {
        let of_objects = foreign.iter().filter_map(|(_, body)| scalar(&body[&parameter.name]));
        let values: BTreeSet<String> = parameter.values.iter().cloned().chain(of_objects).collect();
        for value in values {
            let reply = operation.call_with_query(admin, "", &parameter.name, &value).await;
            if reply.status.is_success() {
                assert_shows_none(operation, &reply, foreign);
            }
        }
    }
}

fn assert_shows_none(operation: &Operation, reply: &Reply, foreign: &[(String, Value)]) {
    let leaked = foreign.iter().map(|(object, _)| object).find(|object| reply.text.contains(object.as_str()));
    assert!(
        leaked.is_none(),
        "{operation} returns an object of another tenant, {leaked:?}: its query must have \
         `tenant_id = t.tenant`\n{reply:#?}"
    );
}

async fn objects_stay_hidden<F: Fixture>(app: &TestApp, globex: &Objects<F>) {
    let admin = app.admin();
    for operation in Operation::all_with_object(app.service) {
        let fault = "finds an object of another tenant without row-level security: its query must have \
                     `tenant_id = t.tenant`";
        globex.call_as_other(&admin, &operation, &[], fault).await;
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
