//! What outlives a deleted tenant: issued invoices with their payments, and the audit trail (CRYPTO-08).

use http::Method;
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    BillingFixture, SERVICE, UNTHROTTLED, admin_of, assert_not_in_database, id, query, rows_of_tenant, run_tenant,
    suspended_long_ago,
};

#[tokio::test]
async fn crypto_08_deletion_of_a_tenant_keeps_issued_invoices_and_lists_them() {
    let app = SERVICE.start_with(&UNTHROTTLED).await;
    let tenant = Uuid::now_v7();
    let name = tenant.to_string();
    run_tenant(&app, &["create", &name, "--name", "Initech Industries"]).await.unwrap();
    let billing = BillingFixture { admin: admin_of(&app, tenant) };
    billing.put_product("PAPER-A4", 200).await;
    let customer = billing.customer().await;
    let order = json!({
        "lines": [{ "sku": "PAPER-A4", "quantity": 2 }], "shippingSpeed": "standard", "customerId": customer,
        "note": "behind the green door",
    });
    let order = async || id(&billing.admin.post("/v1/orders", &order).await.ok(201));
    let (invoiced, open) = (order().await, order().await);
    let invoice = id(&billing.issue(&invoiced).await.ok(201));
    let payment = id(&billing.pay(&invoice, 400).await.ok(201));
    billing.refund(&payment, 100).await.ok(201);

    // The data of one person, with orders and invoices.
    let subject = format!("customers/{customer}");
    let file = palisade_test::scratch_folder().join(format!("subject-{customer}.age"));
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let path = file.to_str().unwrap();
    run_tenant(&app, &["export", &name, "--to", recipient, "--subject", &subject, path]).await.unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
    std::fs::remove_file(&file).unwrap();
    assert!(text.starts_with("age-encryption.org/v1") && !text.contains("Ann Example"));

    run_tenant(&app, &["suspend", &name]).await.unwrap();
    suspended_long_ago(&app.database, tenant).await;
    let done = run_tenant(&app, &["delete", &name, "--confirm", &name]).await.unwrap();
    let kept = done.split("What stays:").nth(1).unwrap();
    for line in [
        "1 rows of public.invoices stay: issued invoices",
        "1 rows of public.invoice_lines stay: issued invoices",
        "1 rows of public.orders stay: orders of issued invoices",
        "1 rows of public.payments stay",
        "1 rows of public.refunds stay",
        "rows of palisade.audit_events stay: audit trail",
    ] {
        assert!(kept.contains(line), "{line}: {done}");
    }
    let left = rows_of_tenant(&app, tenant).await;
    let tables: Vec<&str> = left.iter().map(|row| row.split(':').next().unwrap()).collect();
    let expected = [
        "palisade.audit_events",
        "palisade.audit_journal",
        "palisade.data_keys",
        "palisade.tenants",
        "public.invoice_lines",
        "public.invoice_numbers",
        "public.invoices",
        "public.orders",
        "public.payments",
        "public.refunds",
    ];
    assert_eq!(tables, expected, "{left:?}");
    assert_not_in_database(&app, &invoice, &["Initech Industries", "Ann Example", "behind the green door"]).await;
    let order = format!("select concat(id, customer_id, note) from orders where tenant_id = '{tenant}'");
    assert_eq!(query(&app.database.backup, &order).await, [invoiced.as_str()]);
    assert_ne!(open, invoiced);
    let reply = billing.admin.send(billing.admin.request(Method::GET, "/v1/invoices")).await;
    assert_eq!(reply.problem(403), "tenant_unknown");
}
