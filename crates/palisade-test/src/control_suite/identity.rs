//! Claimed identities (AUTHZ-09): headers, cookies and parameters that claim a tenant, a subject, a
//! role or another method change nothing.

use std::collections::BTreeSet;

use http::{HeaderName, Method};
use palisade::authz::{Permission, QuotaClass, Role};
use serde_json::json;
use uuid::Uuid;

use super::{Fixture, Objects};
use crate::{ACME, GLOBEX, Operation, Reply, TestApp};

/// A role of users that lacks the permission, if there is one.
pub(super) fn role_without(app: &TestApp, permission: Permission) -> Option<Role> {
    let mut users = app.rights.roles.0.iter().filter(|(role, _)| *role != Role::SERVICE);
    users.find(|(_, permissions)| !permissions.contains(&permission)).map(|(role, _)| *role)
}

/// The caller stays the one of its credential, whatever else the request claims.
pub async fn claims_are_ignored<F: Fixture>(app: &TestApp) {
    let globex_id = GLOBEX.id.to_string();
    let subject = app.service.person(&GLOBEX, app.service.admin_role()).subject;
    let scopes: Vec<&str> = app.rights.scopes.iter().map(|scope| scope.as_str()).collect();
    let scopes = scopes.join(" ");
    let claims = [
        ("x-tenant-id", &*globex_id),
        ("x-tenant", &*globex_id),
        ("tenant_id", &*globex_id),
        ("x-user-id", &*subject),
        ("x-forwarded-user", &*subject),
        ("x-remote-user", &*subject),
        ("x-roles", app.service.admin_role().as_str()),
        ("x-scope", &*scopes),
        ("x-original-url", "/v1/me"),
        ("x-http-method-override", "GET"),
        ("cookie", "tenant_id=globex"),
    ];
    let globex = Objects::<F>::new(app, &GLOBEX);
    foreign_objects_stay_hidden(app, &globex, &claims).await;
    replies_stay(app, &claims).await;
    own_identity_stays(app, &claims).await;
}

async fn foreign_objects_stay_hidden<F: Fixture>(app: &TestApp, globex: &Objects<F>, claims: &[(&'static str, &str)]) {
    let admin = app.admin();
    for operation in Operation::all_with_object(app.service) {
        let fault = "believes a claim of the request about its tenant";
        globex.call_as_other(&admin, &operation, claims, fault).await;
        let object = globex.create(&operation).await;
        if let Some(role) = operation.row.permission.and_then(|permission| role_without(app, permission)) {
            let reply = operation.call_with(&app.user(role), &object, operation.example.as_ref(), claims).await;
            assert_eq!(reply.status, 403, "{operation} believes a claim of the request about its role: {reply:#?}");
            assert_eq!(reply.problem(403), "forbidden", "{operation}");
        }
    }
}

/// Reads and exports without an object return the same objects with the claims. Both tenants have
/// objects by now.
async fn replies_stay(app: &TestApp, claims: &[(&'static str, &str)]) {
    let admin = app.admin();
    let returns_objects = |it: &&Operation| it.is_read() || it.row.quota == QuotaClass::Export;
    for operation in Operation::all(app.service).iter().filter(returns_objects).filter(|it| !it.has_object()) {
        let without = operation.call(&admin, "").await;
        let with = operation.call_with(&admin, "", operation.example.as_ref(), claims).await;
        assert_eq!(with.status, without.status, "{operation} believes a claim of the request: {with:#?}");
        assert!(
            with.body["items"] == without.body["items"] && ids(&with) == ids(&without),
            "{operation} believes a claim of the request about its tenant\nwith claims: {with:#?}\n\
             without: {without:#?}"
        );
    }
}

/// The UUIDs in the reply, at any place.
fn ids(reply: &Reply) -> BTreeSet<Uuid> {
    let words = reply.text.split(|char: char| !char.is_ascii_alphanumeric() && char != '-');
    words.filter_map(|word| word.parse().ok()).collect()
}

async fn own_identity_stays(app: &TestApp, claims: &[(&'static str, &str)]) {
    let admin = app.admin();
    let person = app.service.person(&ACME, app.service.admin_role());
    for operation in Operation::all(app.service).iter().filter(|operation| !operation.has_object()) {
        for name in ["tenantId", "tenant_id", "sub", "role"] {
            if operation.row.scope.is_some() && !operation.query.iter().any(|parameter| parameter.name == name) {
                let path = format!("{}?{name}={}", operation.path, GLOBEX.id);
                let mut request = admin.request(operation.method.clone(), &path);
                if let Some(example) = &operation.example {
                    request = request.json(example);
                }
                let reply = admin.send(request).await;
                assert_eq!(reply.faults(), [" unknown_parameter"], "{operation} accepts the parameter {name}");
            }
        }
        if !operation.is_read() {
            let reply = operation.call_with(&admin, "", operation.example.as_ref(), claims).await;
            assert!(reply.status.is_success(), "{operation} must succeed whatever a request claims: {reply:#?}");
            let creator = &reply.body["createdBy"];
            assert!(
                creator.is_null() || *creator == *person.subject,
                "{operation} believes a claim of the request about its subject: {reply:#?}"
            );
        }
    }
    let pairs = claims.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
    let me = admin.send(admin.request(Method::GET, "/v1/me").headers(pairs.collect())).await.ok(200);
    assert_eq!(me["tenantId"], ACME.id.to_string());
    assert_eq!(me["subject"], *person.subject);
    assert_eq!(me["roles"], json!([person.role.as_str()]));
}
