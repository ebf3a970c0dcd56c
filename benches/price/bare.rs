//! What the product is compared with: the same operations without any security, and raw HTTP.
//!
//! [`serve`] is axum and sqlx as a team writes them on the first day: no token, no row-level
//! security, no audit trail, no checks beyond types. The tenant comes from a header. [`hello`]
//! answers each request with the same text. Both run as processes of their own, which `main` starts
//! from this program.

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use palisade::model::Clock;
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, PgPool, postgres::PgPoolOptions};
use tokio::net::TcpListener;
use uuid::Uuid;

#[derive(Deserialize, Serialize, sqlx::FromRow)]
struct Money {
    #[sqlx(rename = "total_amount")]
    amount: i64,
    #[sqlx(rename = "total_currency")]
    currency: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    sku: String,
    quantity: i32,
    unit_price: Money,
}

#[derive(Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
struct Order {
    id: Uuid,
    customer_id: Option<Uuid>,
    status: String,
    shipping_speed: String,
    #[sqlx(json)]
    lines: Vec<Line>,
    #[sqlx(flatten)]
    total: Money,
    created_by: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    items: Vec<Order>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewOrder {
    lines: Vec<NewLine>,
    shipping_speed: String,
}

#[derive(Deserialize)]
struct NewLine {
    sku: String,
    quantity: i32,
}

#[derive(Deserialize)]
struct NewPayment {
    amount: Money,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payment {
    id: Uuid,
    invoice_id: Uuid,
    amount: Money,
    created_at: DateTime<Utc>,
}

#[derive(Serialize, sqlx::FromRow)]
struct Customer {
    id: Uuid,
    name: String,
    email: String,
    phone: String,
}

/// Any failure is a 500, but a missing row a 404.
struct Failed(StatusCode);

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        let missing = matches!(error, sqlx::Error::RowNotFound);
        Self(if missing { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR })
    }
}

impl axum::response::IntoResponse for Failed {
    fn into_response(self) -> axum::response::Response {
        self.0.into_response()
    }
}

macro_rules! orders {
    ($rest:literal) => {
        concat!(
            "select o.id, o.customer_id, o.status, o.shipping_speed, o.total_amount, o.total_currency, o.created_by,
                    o.created_at, o.updated_at,
                    (select json_agg(json_build_object('sku', l.sku, 'quantity', l.quantity, 'unitPrice',
                         json_build_object('amount', l.unit_price_amount, 'currency', o.total_currency))
                         order by l.line_no)
                     from order_lines l where l.tenant_id = o.tenant_id and l.order_id = o.id) as lines
             from orders o ",
            $rest
        )
    };
}

fn tenant(headers: &HeaderMap) -> Result<Uuid, Failed> {
    let text = headers.get("x-tenant").and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).ok_or(Failed(StatusCode::BAD_REQUEST))
}

async fn read(State(db): State<PgPool>, headers: HeaderMap, Path(id): Path<Uuid>) -> Result<Json<Order>, Failed> {
    let query = sqlx::query_as(orders!("where o.tenant_id = $1 and o.id = $2"));
    Ok(Json(query.bind(tenant(&headers)?).bind(id).fetch_one(&db).await?))
}

async fn list(State(db): State<PgPool>, headers: HeaderMap) -> Result<Json<Page>, Failed> {
    let query = sqlx::query_as(orders!("where o.tenant_id = $1 order by o.created_at desc, o.id desc limit 21"));
    let mut items: Vec<Order> = query.bind(tenant(&headers)?).fetch_all(&db).await?;
    let next_cursor = items.get(20).map(|order| format!("{}|{}", order.created_at.timestamp_micros(), order.id));
    items.truncate(20);
    Ok(Json(Page { items, next_cursor }))
}

async fn place(
    State(db): State<PgPool>,
    headers: HeaderMap,
    Json(new): Json<NewOrder>,
) -> Result<(StatusCode, Json<Order>), Failed> {
    let tenant = tenant(&headers)?;
    let (id, now) = (Uuid::now_v7(), Clock::system().now());
    let skus: Vec<&str> = new.lines.iter().map(|line| line.sku.as_str()).collect();
    let quantities: Vec<i32> = new.lines.iter().map(|line| line.quantity).collect();
    let mut connection = db.acquire().await?;
    let mut tx = connection.begin().await?;
    let prices: Vec<(String, i64, String)> = sqlx::query_as(
        "select sku, price_amount, price_currency from products where tenant_id = $1 and sku = any ($2)",
    )
    .bind(tenant)
    .bind(&skus)
    .fetch_all(&mut *tx)
    .await?;
    let price = |line: &NewLine| {
        let (_, amount, currency) = prices.iter().find(|(sku, ..)| *sku == line.sku)?;
        let unit_price = Money { amount: *amount, currency: currency.clone() };
        Some(Line { sku: line.sku.clone(), quantity: line.quantity, unit_price })
    };
    let lines: Option<Vec<Line>> = new.lines.iter().map(price).collect();
    let lines = lines.filter(|lines| !lines.is_empty()).ok_or(Failed(StatusCode::UNPROCESSABLE_ENTITY))?;
    let amount = lines.iter().map(|line| line.unit_price.amount * i64::from(line.quantity)).sum();
    let total = Money { amount, currency: lines[0].unit_price.currency.clone() };
    sqlx::query(
        "insert into orders (tenant_id, id, status, shipping_speed, total_amount, total_currency, created_by,
                             created_at, updated_at)
         values ($1, $2, 'placed', $3, $4, $5, 'caller', $6, $6)",
    )
    .bind(tenant)
    .bind(id)
    .bind(&new.shipping_speed)
    .bind(total.amount)
    .bind(&total.currency)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "insert into order_lines (tenant_id, order_id, line_no, sku, quantity, unit_price_amount)
         select $1, $2, no, sku, quantity, price
         from unnest($3::text[], $4::int[], $5::bigint[]) with ordinality as line (sku, quantity, price, no)",
    )
    .bind(tenant)
    .bind(id)
    .bind(&skus)
    .bind(&quantities)
    .bind(lines.iter().map(|line| line.unit_price.amount).collect::<Vec<_>>())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    let (status, created_by) = ("placed".to_owned(), "caller".to_owned());
    let shipping_speed = new.shipping_speed;
    let (created_at, updated_at) = (now, now);
    let order =
        Order { id, customer_id: None, status, shipping_speed, lines, total, created_by, created_at, updated_at };
    Ok((StatusCode::CREATED, Json(order)))
}

async fn pay(
    State(db): State<PgPool>,
    headers: HeaderMap,
    Path(invoice): Path<Uuid>,
    Json(new): Json<NewPayment>,
) -> Result<(StatusCode, Json<Payment>), Failed> {
    let tenant = tenant(&headers)?;
    let (id, now) = (Uuid::now_v7(), Clock::system().now());
    let mut connection = db.acquire().await?;
    let mut tx = connection.begin().await?;
    let (order, total, paid, status): (Uuid, i64, i64, String) = sqlx::query_as(
        "select order_id, total_amount, paid_amount, status from invoices where tenant_id = $1 and id = $2 for update",
    )
    .bind(tenant)
    .bind(invoice)
    .fetch_one(&mut *tx)
    .await?;
    if status != "open" || paid + new.amount.amount > total {
        return Err(Failed(StatusCode::CONFLICT));
    }
    let is_paid = paid + new.amount.amount == total;
    sqlx::query(
        "insert into payments (tenant_id, id, invoice_id, amount, created_by, created_at)
         values ($1, $2, $3, $4, 'caller', $5)",
    )
    .bind(tenant)
    .bind(id)
    .bind(invoice)
    .bind(new.amount.amount)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    sqlx::query("update invoices set paid_amount = $3, status = $4, updated_at = $5 where tenant_id = $1 and id = $2")
        .bind(tenant)
        .bind(invoice)
        .bind(paid + new.amount.amount)
        .bind(if is_paid { "paid" } else { "open" })
        .bind(now)
        .execute(&mut *tx)
        .await?;
    if is_paid {
        sqlx::query("update orders set status = 'paid', updated_at = $3 where tenant_id = $1 and id = $2")
            .bind(tenant)
            .bind(order)
            .bind(now)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(Payment { id, invoice_id: invoice, amount: new.amount, created_at: now })))
}

async fn customer(
    State(db): State<PgPool>,
    headers: HeaderMap,
    Path(id): Path<Uuid>,
) -> Result<Json<Customer>, Failed> {
    let query = sqlx::query_as("select id, name, email, phone from customers where tenant_id = $1 and id = $2");
    Ok(Json(query.bind(tenant(&headers)?).bind(id).fetch_one(&db).await?))
}

/// Serves the operations until the process is stopped.
pub(crate) async fn serve(address: SocketAddr, database: &str, connections: u32) {
    let options = PgPoolOptions::new().max_connections(connections).min_connections(connections);
    // What the pool can leave out, it leaves out.
    let db = options.test_before_acquire(false).connect(database).await.unwrap();
    let app = Router::new()
        .route("/v1/orders/{id}", get(read))
        .route("/v1/orders", get(list).post(place))
        .route("/v1/invoices/{id}/payments", post(pay))
        .route("/v1/customers/{id}", get(customer))
        .with_state(db);
    let listener = TcpListener::bind(address).await.unwrap();
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await.unwrap();
}

/// Answers each request with the same text until the process is stopped.
pub(crate) async fn hello(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let answer = service_fn(async |_: Request<Incoming>| {
            let mut response = Response::new(r#"{"hello":"world"}"#.to_owned());
            let json = hyper::header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
            Ok::<_, Infallible>(response)
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}
