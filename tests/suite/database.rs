//! Rights of the logins on orders, products and billing (AUTHZ-08), keys between their tables that
//! include the tenant, and the check that code of the service sends checked statements only (AUTHZ-07).

use palisade::dev::database::Urls;
use sqlx::error::DatabaseError;

use crate::support::{ACME, SERVICE, run, source_check};

/// The SQLSTATE with which the writer's statement for Acme fails.
async fn writer_error(database: &Urls, statement: &str) -> String {
    let sql = format!("set local app.tenant_id = '{}'; {statement}", ACME.id);
    let error = run(&database.writer, &sql).await.unwrap_err();
    error.as_database_error().and_then(DatabaseError::code).unwrap_or_default().into_owned()
}

/// Demo data is written by the owner of the tables, in the development stack only.
#[test]
fn authz_07_service_code_sends_checked_statements_only() {
    assert_eq!(source_check::faults_below("src", "src/demo"), Vec::<String>::new());
}

#[tokio::test]
async fn authz_07_order_line_of_another_tenants_order_is_rejected() {
    let line = format!(
        "insert into order_lines values ('{}', '0190a002-0000-7000-8000-000000000001', 9, 'PEN-BLUE', 1, 1)",
        ACME.id
    );
    // The composite foreign key.
    assert_eq!(writer_error(&SERVICE.database().await, &line).await, "23503");
}

#[tokio::test]
async fn authz_08_writer_cannot_change_amounts_or_delete_rows() {
    let database = SERVICE.database().await;
    for denied in [
        "delete from orders",
        "truncate orders",
        "update orders set total_amount = 1",
        "update order_lines set quantity = 1",
        "delete from products",
        "update products set sku = 'X-1'",
        "update invoice_lines set quantity = 1",
        "update invoices set total_amount = 1",
        "update payments set amount = 1",
    ] {
        assert_eq!(writer_error(&database, denied).await, "42501", "{denied}");
    }
}
