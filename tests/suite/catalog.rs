//! The database catalog: every tenant table is isolated (AUTHZ-07), and every login has exactly the
//! reviewed rights (AUTHZ-08, `rights.txt` of kernel and service).

use crate::support::{SERVICE, catalog, query, run};

#[tokio::test]
async fn authz_07_every_table_keeps_tenants_apart() {
    assert_eq!(catalog::violations(&SERVICE.database().await.owner).await, Vec::<String>::new());
}

#[tokio::test]
async fn authz_08_each_login_has_the_rights_that_are_listed_and_no_other() {
    catalog::assert_rights(&SERVICE.database().await.owner, "deploy/rights.txt").await;
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
