//! Access rules of every operation: anonymous callers (AUTHN-01), scopes (AUTHZ-01), foreign
//! objects (AUTHZ-03) and the reviewed table of callers and objects (AUTHZ-05).

use std::fmt::Write as _;

use http::Method;
use palisade::{
    authz::{Callers, Role, Scope, policy::AUDIT_READ},
    dev::issuer::SERVICE_CLIENT,
};
use serde_json::Value;

use super::{Fixture, Objects};
use crate::{ACME, Actor, GLOBEX, Operation, TestApp, authn::challenge};

/// Every operation that is not public rejects anonymous callers with the same 401, before it reads
/// the body. Public ones respond.
pub async fn anonymous_is_rejected<F: Fixture>(app: &TestApp) {
    let anonymous = app.anonymous();
    let matrix = app.service.matrix();
    // The routes of the router include those that the OpenAPI document omits.
    for (method, path) in &app.served {
        let row = matrix.find(method, path).unwrap_or_else(|| panic!("{method} {path} has no row in the route matrix"));
        let id = F::unused_id(row.path);
        let segments = path.split('/').map(|part| if part.starts_with(':') { &*id } else { part });
        let request = anonymous.request(method.clone(), &segments.collect::<Vec<_>>().join("/"));
        if row.callers == Callers::Browser {
            let reply = anonymous.send(request).await;
            assert!(
                !reply.status.is_success(),
                "{method} {path} must not serve a browser without a cookie: {reply:#?}"
            );
            continue;
        }
        if row.callers == Callers::Public {
            let reply = anonymous.send(request).await;
            assert_eq!(reply.status, 200, "{method} {path} is public and must respond: {reply:#?}");
            continue;
        }
        let request = request.header("content-type", "text/plain").body("not even JSON");
        let reply = anonymous.send(request).await;
        assert_eq!(reply.status, 401, "{method} {path} must reject anonymous callers: {reply:#?}");
        assert_eq!(reply.problem(401), "unauthenticated", "{method} {path}");
        assert_eq!(challenge(&reply).get("error"), None, "{method} {path}");
        assert_eq!(reply.body["errors"], Value::Null, "{method} {path} reports faults of the body");
    }
}

/// Each operation needs the scope of its row, and no other.
pub async fn scopes_are_exact<F: Fixture>(app: &TestApp) {
    let acme = Objects::<F>::new(app, &ACME);
    let admin = app.service.admin_role();
    for operation in Operation::all(app.service) {
        let Some(needed) = operation.row.scope else { continue };
        let others: Vec<Scope> = app.rights.scopes.iter().copied().filter(|scope| *scope != needed).collect();
        let object = acme.create(&operation).await;
        let reply = operation.call(&app.user_of(&ACME, admin, &others), &object).await;
        assert_eq!(reply.status, 403, "{operation} must need the scope {}: {reply:#?}", needed.as_str());
        assert_eq!(reply.problem(403), "insufficient_scope", "{operation}");
        let challenge = challenge(&reply);
        assert_eq!(challenge["error"], "insufficient_scope", "{operation}");
        assert_eq!(challenge["scope"], needed.as_str(), "{operation}");
        // An API key gets scopes that its creator has.
        let of_the_key = operation.row.path.starts_with("/v1/api-keys").then_some(AUDIT_READ);
        let sufficient: Vec<Scope> = [needed].into_iter().chain(of_the_key).collect();
        let reply = operation.call(&app.user_of(&ACME, admin, &sufficient), &object).await;
        assert!(
            reply.status.is_success(),
            "{operation} must need no scope but {}: {reply:#?}\nIf the object is in another state, \
             repair `Fixture::create` for its path; if the body is refused, the example of its schema.",
            needed.as_str()
        );
    }
}

/// An object of another tenant is answered like a missing one, and stays as it is.
pub async fn foreign_is_like_missing<F: Fixture>(app: &TestApp) {
    let globex = Objects::<F>::new(app, &GLOBEX);
    let admin = app.admin();
    for operation in Operation::all_with_object(app.service) {
        let fault = "must answer an object of another tenant with 404";
        let foreign = globex.call_as_other(&admin, &operation, &[], fault).await;
        if operation.method == Method::PUT {
            continue;
        }
        let missing = operation.call(&admin, &F::unused_id(&operation.path)).await;
        assert_eq!(foreign.problem(404), "not_found", "{operation}");
        assert_eq!(foreign.comparable(), missing.comparable(), "{operation} tells foreign objects from missing ones");
    }
}

/// Every kind of caller, by the columns of the table.
async fn callers(app: &TestApp) -> Vec<(&'static str, Actor)> {
    let service =
        app.forge().claim("sub", SERVICE_CLIENT).claim("client_id", SERVICE_CLIENT).claim("roles", Value::Null);
    let mut callers = vec![("anonymous", app.anonymous())];
    let roles = app.rights.roles.0.iter().map(|(role, _)| *role).filter(|role| *role != Role::SERVICE);
    callers.extend(roles.map(|role| (role.as_str(), app.user(role))));
    callers.push(("service", app.bearer(service.token())));
    if let Some(api_key) = app.api_key_with_all_scopes().await {
        callers.push(("api key", api_key));
    }
    callers
}

/// The status of every operation, for each kind of caller and each relation to the object, is the
/// one in the file `snapshot`.
pub async fn table_is_reviewed<F: Fixture>(app: &TestApp, snapshot: &str) {
    let table = access_table::<F>(app).await;
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(snapshot, &table).unwrap();
    }
    let expected = std::fs::read_to_string(snapshot).unwrap_or_default();
    let changed: Vec<&str> = table.lines().filter(|line| !expected.lines().any(|row| row == *line)).collect();
    assert!(
        table == expected,
        "access rights have changed:\n{}\n\nIf that is intended: `UPDATE_SNAPSHOTS=1 cargo test authz_05`, and \
         review the difference in {snapshot} as a change of rights.",
        changed.join("\n")
    );
}

async fn access_table<F: Fixture>(app: &TestApp) -> String {
    let acme = Objects::<F>::new(app, &ACME);
    let globex = Objects::<F>::new(app, &GLOBEX);
    let callers = callers(app).await;
    let mut table = format!("{:<36} {:<8}", "operation", "object");
    for (name, _) in &callers {
        let _ = write!(table, " {name:<9}");
    }
    for operation in Operation::all(app.service) {
        let kinds: &[&str] = if operation.has_object() { &["own", "other's", "missing"] } else { &["-"] };
        for kind in kinds {
            let _ = write!(table, "\n{:<36} {kind:<8}", operation.to_string());
            for (_, caller) in &callers {
                // A new object for each caller: the previous one may have changed it.
                let object = match *kind {
                    "own" => acme.create(&operation).await,
                    "other's" => globex.create(&operation).await,
                    _ => F::unused_id(&operation.path),
                };
                let status = operation.call(caller, &object).await.status.as_u16();
                let _ = write!(table, " {status:<9}");
            }
            table.truncate(table.trim_end().len());
        }
    }
    table.push('\n');
    table
}
