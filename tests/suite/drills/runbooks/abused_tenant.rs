//! The page abused-tenant.md: suspends a tenant on two replicas, and resumes it (LOG-08).

use super::Incident;
use crate::support::ACME;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_08_runbook_abused_tenant() {
    let page = "abused-tenant.md";
    let incident = Incident::start(&[]).await;
    let bob = incident.person("bob");
    let tenant = ACME.id.to_string();
    for actor in &bob {
        actor.get("/v1/me").await.ok(200);
    }
    incident.run(page, 0, &[("TENANT", &tenant)]);
    incident.wait_for_rejection("the tenant is suspended", &bob, 403).await;
    assert_eq!(bob[0].get("/v1/me").await.problem(403), "tenant_suspended");
    assert!(incident.run(page, 1, &[("TENANT", &tenant)]).contains(&format!("{tenant} active")));
    incident.wait_for_rejection("the tenant is active", &bob, 200).await;
}
