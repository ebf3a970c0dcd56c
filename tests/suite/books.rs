//! The database refuses impossible books, whatever the service writes (INPUT-09, INPUT-11): each test
//! writes as the service's login, past the domain.

use palisade::model::State;
use service::{
    demo,
    domain::{InvoiceStatus, OrderStatus},
};
use sqlx::{AssertSqlSafe, Connection as _, error::DatabaseError};

use crate::support::{ACME, SERVICE, TestApp, run, superuser};

/// The order of [`demo::OPEN_INVOICE`].
const INVOICED_ORDER: &str = "0190a001-0000-7000-8000-000000000004";
/// The order of the paid invoice, and that invoice.
const PAID_ORDER: &str = "0190a001-0000-7000-8000-000000000005";
const PAID_INVOICE: &str = "0190a021-0000-7000-8000-000000000001";

/// Takes the next number of the demo tenant, 3.
const NEXT_NUMBER: &str = "update invoice_numbers set last_number = last_number + 1;";

/// What the writer's transaction violates: a constraint or a trigger. `None` if it commits.
async fn violation(app: &TestApp, statements: &str) -> Option<String> {
    let sql = format!("set local app.tenant_id = '{}'; {statements}", ACME.id);
    let error = run(&app.database.writer, &sql).await.err()?;
    let name = error.as_database_error().and_then(DatabaseError::constraint).map(str::to_owned);
    Some(name.unwrap_or_else(|| error.to_string()))
}

/// Asserts that each transaction violates this constraint.
async fn assert_refused(app: &TestApp, constraint: &str, transactions: &[&str]) {
    for statements in transactions {
        assert_eq!(violation(app, statements).await.as_deref(), Some(constraint), "{statements}");
    }
}

/// Inserts a payment of the invoice.
fn payment(invoice: &str, amount: i64) -> String {
    format!(
        "insert into payments (tenant_id, id, invoice_id, amount, created_by, created_at)
         values ('{}', gen_random_uuid(), '{invoice}', {amount}, 'x', now());",
        ACME.id
    )
}

/// Inserts an invoice of the order.
fn invoice(order: &str, number: i64, status: &str, total: &str) -> String {
    format!(
        "insert into invoices (tenant_id, id, order_id, number, status, total_amount, total_currency, issued_by,
                               issued_at, updated_at)
         select tenant_id, gen_random_uuid(), id, {number}, '{status}', {total}, 'x', now(), now()
         from orders where id = '{order}';"
    )
}

#[tokio::test]
async fn input_11_database_allows_exactly_the_transitions_of_the_domain() {
    let app = SERVICE.start().await;
    compare::<OrderStatus>(&app, "orders", "order_transition", OrderStatus::ALL).await;
    compare::<InvoiceStatus>(&app, "invoices", "invoice_transition", InvoiceStatus::ALL).await;
}

/// Compares `may_become` with the trigger, for each pair of states. Rolls each change back, so no
/// check at the end of a transaction takes part.
async fn compare<S: State + PartialEq + Copy + std::fmt::Display>(
    app: &TestApp,
    table: &str,
    trigger: &str,
    states: &[S],
) {
    let mut superuser = superuser(&app.database).await;
    let mut compared = 0;
    for from in states {
        for to in states.iter().filter(|to| *to != from) {
            let mut tx = superuser.begin().await.unwrap();
            let prepare = format!(
                "set local session_replication_role = replica; alter table invoices drop constraint status_fits_sums;
                 alter table invoices drop constraint paid_is_not_refunded;
                 update {table} set status = '{from}'; set local session_replication_role = origin;
                 set local role app_writer; set local app.tenant_id = '{}'",
                ACME.id
            );
            sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *tx).await.unwrap();
            let change = format!("update {table} set status = '{to}'");
            let changed = sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut *tx).await;
            let refused = changed.as_ref().err().map(|error| error.as_database_error().unwrap().constraint());
            assert!(changed.as_ref().map_or(true, |done| done.rows_affected() > 0), "no row of {table}");
            assert_eq!(refused, (!from.may_become(*to)).then_some(Some(trigger)), "{table}: {from} to {to}");
            compared += 1;
            tx.rollback().await.unwrap();
        }
    }
    assert_eq!(compared, states.len() * (states.len() - 1));
}

#[tokio::test]
async fn input_11_database_refuses_order_states_that_contradict_the_invoice() {
    let app = SERVICE.start().await;
    let placed = demo::FIRST_ORDER.to_string();
    let set =
        |table: &str, id: &str, status: &str| format!("update {table} set status = '{status}' where id = '{id}';");
    let open = demo::OPEN_INVOICE.to_string();
    assert_refused(
        &app,
        "order_fits_invoice",
        &[
            // An invoice is missing, or its state is another.
            &set("orders", &placed, "invoiced"),
            &set("orders", &placed, "paid"),
            &set("orders", INVOICED_ORDER, "placed"),
            &set("orders", INVOICED_ORDER, "cancelled"),
            &set("orders", INVOICED_ORDER, "paid"),
            &set("orders", PAID_ORDER, "refunded"),
            &set("invoices", &open, "void"),
            &(NEXT_NUMBER.to_owned() + &invoice(&placed, 3, "open", "total_amount, total_currency")),
            "insert into orders (tenant_id, id, status, shipping_speed, total_amount, total_currency, created_by,
                                 created_at, updated_at)
             select tenant_id, gen_random_uuid(), 'fulfilled', shipping_speed, 1, 'EUR', 'x', now(), now()
             from orders limit 1",
            // The end of the transaction does not see the order.
            &(set("orders", INVOICED_ORDER, "cancelled") + "set local app.tenant_id = ''"),
        ],
    )
    .await;
    assert_refused(&app, "order_transition", &[&set("orders", PAID_ORDER, "placed")]).await;
    let both = set("invoices", &open, "void") + &set("orders", INVOICED_ORDER, "placed");
    assert_eq!(violation(&app, &both).await, None);
    assert_eq!(violation(&app, &set("orders", PAID_ORDER, "fulfilled")).await, None);
}

#[tokio::test]
async fn input_09_database_refuses_an_invoice_with_another_total_than_its_order() {
    let app = SERVICE.start().await;
    let placed = demo::FIRST_ORDER.to_string();
    assert_refused(
        &app,
        "invoice_total",
        &[
            &invoice(&placed, 91, "open", "total_amount - 1, total_currency"),
            &invoice(&placed, 91, "open", "total_amount, 'USD'"),
            &invoice(&placed, 91, "open", "5, 'USD'"),
        ],
    )
    .await;
    let invoiced = NEXT_NUMBER.to_owned()
        + &invoice(&placed, 3, "open", "total_amount, total_currency")
        + &format!("update orders set status = 'invoiced' where id = '{placed}'");
    assert_eq!(violation(&app, &invoiced).await, None);
}

#[tokio::test]
async fn input_11_database_refuses_invoices_out_of_turn_and_gaps_in_their_numbers() {
    let app = SERVICE.start().await;
    let total = "total_amount, total_currency";
    assert_refused(
        &app,
        "invoice_is_new",
        &[&invoice(INVOICED_ORDER, 1, "void", total), &invoice(PAID_ORDER, 900, "refunded", total)],
    )
    .await;
    assert_refused(&app, "invoice_number", &[&invoice(&demo::FIRST_ORDER.to_string(), 3, "open", total)]).await;
    let last = |number: i64| format!("update invoice_numbers set last_number = {number}");
    assert_refused(&app, "next_invoice_number", &[&last(1), &last(4), &last(2)]).await;
    assert_refused(&app, "numbers_without_gaps", &[NEXT_NUMBER]).await;
}

#[tokio::test]
async fn input_09_database_refuses_lines_that_do_not_add_up_to_the_invoice() {
    let app = SERVICE.start().await;
    let placed = demo::FIRST_ORDER.to_string();
    let line = |no: i32, amount: &str| {
        format!(
            "insert into invoice_lines (tenant_id, invoice_id, line_no, sku, description, quantity, unit_price_amount)
             select tenant_id, id, {no}, 'PEN-BLUE', 'x', 1, {amount} from invoices
             where number = (select max(number) from invoices);"
        )
    };
    let issue = NEXT_NUMBER.to_owned() + &invoice(&placed, 3, "open", "total_amount, total_currency");
    assert_refused(
        &app,
        "invoice_lines_total",
        &[
            // An issued invoice.
            &line(9, "0"),
            &line(9, "total_amount"),
            &(issue.clone() + &line(1, "total_amount - 1")),
            &(issue.clone() + &line(1, "total_amount") + &line(2, "0")),
        ],
    )
    .await;
    let invoiced =
        issue + &line(1, "total_amount") + &format!("update orders set status = 'invoiced' where id = '{placed}'");
    assert_eq!(violation(&app, &invoiced).await, None);
}

#[tokio::test]
async fn input_09_database_refuses_amounts_that_are_not_the_sums_of_payments_and_refunds() {
    let app = SERVICE.start().await;
    let open = demo::OPEN_INVOICE.to_string();
    let paid = |amount: i64| format!("update invoices set paid_amount = {amount} where id = '{open}';");
    let refund = |amount: i64| {
        format!(
            "insert into refunds (tenant_id, id, payment_id, amount, created_by, created_at)
             values ('{}', gen_random_uuid(), '{}', {amount}, 'x', now());",
            ACME.id,
            demo::FIRST_PAYMENT
        )
    };
    let refunded =
        |amount: i64| format!("update payments set refunded_amount = {amount} where id = '{}';", demo::FIRST_PAYMENT);
    let invoice_refunded =
        |amount: i64| format!("update invoices set refunded_amount = {amount} where id = '{PAID_INVOICE}';");
    assert_refused(
        &app,
        "invoice_sums",
        &[
            &paid(10),
            &payment(&open, 10),
            &(payment(&open, 10) + &paid(11)),
            &invoice_refunded(5),
            // The end of the transaction does not see the invoice.
            &(payment(&open, 10) + "set local app.tenant_id = ''"),
        ],
    )
    .await;
    assert_refused(
        &app,
        "payment_sums",
        &[
            &refund(5),
            &(refunded(5) + &invoice_refunded(5)),
            &(refund(5) + &refunded(6) + &invoice_refunded(6)),
            &(refund(5) + &refunded(5)),
            &(refund(5) + &refunded(5) + &invoice_refunded(4)),
        ],
    )
    .await;
    assert_eq!(violation(&app, &(payment(&open, 10) + &paid(10))).await, None);
    assert_eq!(violation(&app, &(refund(5) + &refunded(5) + &invoice_refunded(5))).await, None);
}

#[tokio::test]
async fn input_11_database_refuses_payments_of_invoices_that_are_not_open() {
    let app = SERVICE.start().await;
    let total = format!("(select total_amount from invoices where id = '{PAID_INVOICE}')");
    let refund = format!(
        "insert into refunds (tenant_id, id, payment_id, amount, created_by, created_at)
         values ('{}', gen_random_uuid(), '{}', {total}, 'x', now());
         update payments set refunded_amount = {total} where id = '{}';
         update invoices set refunded_amount = {total} where id = '{PAID_INVOICE}';",
        ACME.id,
        demo::FIRST_PAYMENT,
        demo::FIRST_PAYMENT
    );
    assert_refused(&app, "paid_is_not_refunded", &[&refund]).await;
    let void = format!("update invoices set status = 'void' where id = '{}';", demo::OPEN_INVOICE)
        + &format!("update orders set status = 'placed' where id = '{INVOICED_ORDER}';");
    let pay = |invoice: &str| {
        payment(invoice, 10) + &format!("update invoices set paid_amount = paid_amount + 10 where id = '{invoice}';")
    };
    let part = refund.replace(&total, "10");
    assert_refused(
        &app,
        "payment_of_open_invoice",
        &[&(void + &pay(&demo::OPEN_INVOICE.to_string())), &(part + &pay(PAID_INVOICE))],
    )
    .await;
}
