//! Shelves, a resource that the team added.

use serde_json::json;
use service::access::roles;

use crate::support::{ACME, GLOBEX, SERVICE, run_as_superuser};

#[tokio::test]
async fn shelves_of_the_tenant_are_listed_by_name() {
    let app = SERVICE.start().await;
    for (tenant, name) in [(&ACME, "Low"), (&ACME, "High"), (&GLOBEX, "Foreign")] {
        let shelf = format!("insert into shelves values ('{}', gen_random_uuid(), '{name}')", tenant.id);
        run_as_superuser(&app, shelf).await;
    }
    let listed = app.user(roles::VIEWER).get("/v1/shelves").await.ok(200);
    assert_eq!(listed["items"], json!([{ "name": "High" }, { "name": "Low" }]));
}
