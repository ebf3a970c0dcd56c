//! How an issuer's names become subjects, clients, roles, scopes and tenants (AUTHN-04).

use serde_json::{Value, json};

use super::{Shape, assert_reason};
use crate::support::{ACME, GLOBEX, authn::reject_reason};

#[tokio::test]
async fn authn_04_scopes_and_roles_have_the_issuers_names() {
    let acme = ACME.id.to_string();
    let shape = Shape::new(&[
        ("SCOPE_PREFIX", "shop/"),
        ("SCOPE_MAP", "Notes.Read=notes:read, Notes.Write=notes:write"),
        ("ROLES_CLAIM", "/urn:zitadel:roles/*~"),
        ("ROLE_MAP", "Notes-Admins=admin, Notes-Admins=viewer, CN=Writers=writer"),
    ])
    .await;
    let me = async |scope: &str, roles: Value| {
        let me = shape.me(json!({ "scope": scope, "urn:zitadel:roles": roles })).await.ok(200);
        (me["scopes"].clone(), me["roles"].clone())
    };
    let (scopes, roles) = me("shop/Notes.Read openid", json!({ "Notes-Admins": { "1": acme } })).await;
    assert_eq!((scopes, roles), (json!(["notes:read"]), json!(["viewer", "admin"])));
    // Names that the maps do not list count for nothing, those of this API among them.
    let unlisted = "Notes.Read notes:read shop/notes:read shop/shop/Notes.Read";
    assert_eq!(me(unlisted, json!({ "admin": {}, "writer": {}, "notes-admins": {} })).await, (json!([]), json!([])));
    for roles in [json!(["Notes-Admins"]), json!("Notes-Admins"), json!(1)] {
        let reply = shape.me(json!({ "urn:zitadel:roles": roles })).await;
        assert_reason(&reply, "claims", "roles");
    }
}

#[tokio::test]
async fn authn_04_tenants_have_the_issuers_names() {
    let [acme, globex] = [&ACME, &GLOBEX].map(|tenant| tenant.id.to_string());
    let map = format!("201992845=  {acme}, acme={acme}, beta={globex}");
    let shape = Shape::new(&[("TENANT_CLAIM", "org"), ("TENANT_MAP", &map), ("TENANTS", &acme)]).await;
    for name in ["201992845", "acme"] {
        assert_eq!(shape.me(json!({ "org": name })).await.ok(200)["tenantId"], acme);
    }
    // Not in the list of tenants, not in the map, and a UUID that the map does not name.
    for name in ["beta", "other", "ACME", "", &acme] {
        assert_reason(&shape.me(json!({ "org": name })).await, "tenant", "");
    }
    for none in [Value::Null, json!(201_992_845), json!(["acme"])] {
        assert_reason(&shape.me(json!({ "org": none })).await, "claims", "tenant");
    }
    // The map is a list of tenants too.
    let only = Shape::new(&[("TENANT_CLAIM", "org"), ("TENANT_MAP", &format!("acme={acme}"))]).await;
    only.me(json!({ "org": "acme" })).await.ok(200);
    assert_reason(&only.me(json!({ "org": globex })).await, "tenant", "");
}

#[tokio::test]
async fn authn_04_exactly_one_organization_is_the_tenant() {
    let acme = ACME.id.to_string();
    let by_id = Shape::new(&[("TENANT_CLAIM", "/organization/*/id")]).await;
    let organization = |value: Value| json!({ "organization": value });
    assert_eq!(by_id.me(organization(json!({ "a": { "id": acme } }))).await.ok(200)["tenantId"], acme);
    for value in [
        json!({}),
        json!({ "a": { "id": acme }, "b": { "id": acme } }),
        json!({ "a": { "id": acme }, "b": {} }),
        json!({ "a": { "id": [acme] } }),
        json!({ "a": acme }),
        json!([acme, acme]),
        json!(acme),
    ] {
        assert_reason(&by_id.me(organization(value)).await, "claims", "tenant");
    }
    let map = format!("acme={acme}");
    let by_name = Shape::new(&[("TENANT_CLAIM", "/organization/*~"), ("TENANT_MAP", &map)]).await;
    assert_eq!(by_name.me(organization(json!({ "acme": {} }))).await.ok(200)["tenantId"], acme);
    for value in [json!({ "acme": {}, "b": {} }), json!(["acme"]), json!("acme")] {
        assert_reason(&by_name.me(organization(value)).await, "claims", "tenant");
    }
}

#[tokio::test]
async fn authn_04_tenant_template_matches_one_group() {
    let acme = ACME.id.to_string();
    let shape = Shape::new(&[("TENANT_CLAIM", "cognito:groups"), ("TENANT_TEMPLATE", "tenant-{tenant}")]).await;
    let me = async |groups: Value| shape.me(json!({ "cognito:groups": groups })).await;
    for groups in [json!(["sales", format!("tenant-{acme}")]), json!(format!("tenant-{acme}"))] {
        assert_eq!(me(groups).await.ok(200)["tenantId"], acme);
    }
    let two = json!([format!("tenant-{acme}"), format!("tenant-{}", GLOBEX.id)]);
    for groups in [two, json!([acme]), json!(["tenant-"]), json!(["tenant-acme"]), json!([]), json!(1)] {
        assert_reason(&me(groups).await, "claims", "tenant");
    }
}

#[tokio::test]
async fn authn_07_subject_and_client_come_from_the_settings() {
    let shape = Shape::new(&[("SUBJECT_CLAIM", "oid"), ("SERVICE_CLIENTS", "job")]).await;
    let me = shape.me(json!({ "oid": "o-1", "sub": "pairwise" })).await.ok(200);
    assert_eq!((&me["subject"], &me["kind"]), (&json!("o-1"), &json!("user")));
    assert_eq!(shape.me(json!({ "oid": "o-1", "sub": null })).await.ok(200)["subject"], "o-1");
    assert_reason(&shape.me(json!({ "oid": null })).await, "claims", "sub");
    // A program's token is recognized by either name.
    for claims in [json!({ "oid": "x", "sub": "other" }), json!({ "oid": "other" })] {
        let claims = super::changed(claims, &json!({ "client_id": "other" }));
        assert_eq!(reject_reason(&shape.me(claims).await), "service_client");
    }
    // A listed program may lack the claim; it never becomes a user by that.
    let job = shape.me(json!({ "sub": "job", "client_id": "job" })).await.ok(200);
    assert_eq!((&job["subject"], &job["kind"]), (&json!("job"), &json!("service")));
    let fixed = Shape::new(&[("FIXED_CLIENT", "portal")]).await;
    let me = fixed.me(json!({ "client_id": null })).await.ok(200);
    assert_eq!(me["clientId"], "portal");
    assert_eq!(fixed.me(json!({ "client_id": "other" })).await.ok(200)["clientId"], "portal");
}
