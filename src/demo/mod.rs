//! The demo of the command `dev`: customers ([`customers`]), products, orders and invoices
//! (`demo.sql`), and a page that calls the API (`page`). Tests use the same data.

mod customers;

use palisade::{Demo, DemoFile, DemoKeys, Request, SeedFuture, Stack, model::TenantId};
use sqlx::PgConnection;
use uuid::{Uuid, uuid};

/// The demo data of this service.
pub const DEMO: Demo =
    Demo { seed, requests, scopes: "orders:read,orders:write", list: "/v1/orders?limit=2", files: &PAGE };

const INDEX: &str = include_str!("page/index.html");

/// A page that signs in and places orders: an example of a browser client, at `/demo`.
const PAGE: [DemoFile; 4] = [
    DemoFile { path: "/demo", media_type: "text/html; charset=utf-8", text: INDEX },
    // The issuer returns here after a sign-out.
    DemoFile { path: "/", media_type: "text/html; charset=utf-8", text: INDEX },
    DemoFile { path: "/demo/demo.css", media_type: "text/css; charset=utf-8", text: include_str!("page/demo.css") },
    DemoFile {
        path: "/demo/demo.js",
        media_type: "text/javascript; charset=utf-8",
        text: include_str!("page/demo.js"),
    },
];

/// An order of the first tenant. The printed commands use it, so it always exists.
pub const FIRST_ORDER: Uuid = uuid!("0190a001-0000-7000-8000-000000000001");

/// A customer of the first tenant; always exists.
pub const FIRST_CUSTOMER: Uuid = uuid!("0190a011-0000-7000-8000-000000000001");

/// An invoice of the first tenant with an outstanding amount; always exists.
pub const OPEN_INVOICE: Uuid = uuid!("0190a021-0000-7000-8000-000000000002");

/// A payment of the first tenant; always exists.
pub const FIRST_PAYMENT: Uuid = uuid!("0190a031-0000-7000-8000-000000000001");

/// Adds the demo data that does not exist yet. Ids have the number of the tenant.
fn seed<'a>(tx: &'a mut PgConnection, keys: &'a DemoKeys, tenant: TenantId, number: u128) -> SeedFuture<'a> {
    Box::pin(async move {
        customers::seed(tx, keys, tenant, number).await?;
        sqlx::raw_sql(include_str!("demo.sql")).execute(tx).await?;
        Ok(())
    })
}

/// Requests to try.
fn requests(stack: &Stack<'_>) -> Vec<Request> {
    let base = stack.base;
    let order = FIRST_ORDER;
    let body = r#"{"lines":[{"sku":"PAPER-A4","quantity":3}],"shippingSpeed":"express"}"#;
    let post = format!("-H 'Content-Type: application/json' -d '{body}' {base}/v1/orders");
    let sales = stack.auth("acme-sales");
    let viewer = stack.auth("acme-viewer");
    let other_tenant = stack.auth("globex-admin");
    let customer = FIRST_CUSTOMER;
    let pay = format!(
        "{} -H 'Idempotency-Key: try-it' -H 'Content-Type: application/json' \
         -d '{{\"amount\":{{\"amount\":100,\"currency\":\"EUR\"}}}}' {base}/v1/invoices/{}/payments",
        stack.auth("acme-billing"),
        OPEN_INVOICE
    );
    let requests = [
        ("201", "place an order", format!("{sales} {post}")),
        ("200", "list orders", format!("{viewer} '{base}/v1/orders?limit=2'")),
        ("200", "read one order", format!("{viewer} {base}/v1/orders/{order}")),
        ("200", "read a customer; personal data is masked", format!("{sales} {base}/v1/customers/{customer}")),
        ("201", "record a payment; a retry does not pay twice", pay),
        ("401", "no token", format!("{base}/v1/orders")),
        ("403", "a viewer may not place orders", format!("{viewer} {post}")),
        ("404", "another tenant's order looks like a missing one", format!("{other_tenant} {base}/v1/orders/{order}")),
        (
            "400",
            "a field that is not in the schema",
            format!("{sales} -H 'Content-Type: application/json' -d '{{\"price\":1}}' {base}/v1/orders"),
        ),
    ];
    let request = |(status, meaning, arguments)| Request { status, meaning, arguments };
    requests.map(request).into()
}
