//! Query plans on large tables: no statement of the service reads a whole table, and deep pages of
//! a list cost no more than the first.
//!
//! The statements come from `.sqlx`, where sqlx keeps every checked query, and from the registered
//! sealed tables; the planner sees 200,000
//! orders in one tenant.

use std::fs;

use palisade::{dev::database::Urls, store::RegisteredTable};
use secrecy::ExposeSecret;
use serde_json::Value;
use service::app;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::support::{ACME, SERVICE, superuser};

/// Statements inside the functions of the migrations, abridged: the plan of a call does not show
/// them.
const FUNCTION_STATEMENTS: [&str; 15] = [
    "select * from palisade.idempotency_keys k
     where k.tenant_id = $1::uuid and k.subject = $2::text and k.client = $3::text and k.operation = $4::text
       and k.key = $5::text",
    "select k.name, s.roles from palisade.api_keys k
     join palisade.subject_roles s on s.tenant_id = k.tenant_id and s.subject = k.created_by
     where k.tenant_id = $1::uuid and k.id = $2::uuid",
    "update palisade.api_keys k set last_used_at = u.used_at
     from unnest($2::uuid[], $3::timestamptz[]) as u (id, used_at)
     where k.tenant_id = $1::uuid and k.id = u.id and (k.last_used_at is null or k.last_used_at < u.used_at)",
    "update palisade.subject_roles s set roles = $3::text[], as_of = $4::timestamptz
     where s.tenant_id = $1::uuid and s.subject = $2::text",
    "select e.subject from palisade.subject_roles e
     where e.tenant_id = $1::uuid and e.as_of < now() - interval '3 days'
       and not e.has_api_keys
     order by e.as_of limit 20",
    "select from palisade.api_keys k where k.tenant_id = $1::uuid and k.created_by = $2::text and k.revoked_at is null
                              and k.expires_at > now()",
    "delete from palisade.idempotency_keys k
     where k.tenant_id = $1::uuid and k.subject = $2::text and k.client = $3::text and k.operation = $4::text
       and k.key = $5::text and k.expires_at <= $6::timestamptz",
    "select e.ctid from palisade.idempotency_keys e
     where e.tenant_id = $1::uuid and e.expires_at <= $2::timestamptz order by e.expires_at limit 20",
    "select t.of_tenant from palisade.tenants t where t.of_tenant > $1::uuid order by t.of_tenant limit 100",
    "select k.id from palisade.api_keys k
     where k.tenant_id = $1::uuid and least(k.expires_at, k.revoked_at) < now() - interval '366 days'
     order by least(k.expires_at, k.revoked_at) limit 1000",
    "select j.digest from palisade.audit_journal j where j.position > $1::bigint and j.position <= $2::bigint",
    "select from orders o
     where o.tenant_id = $1::uuid and o.id = $2::uuid and o.total_amount = $3::bigint and o.total_currency = $4::text",
    "select from orders o
     left join invoices i on i.tenant_id = o.tenant_id and i.order_id = o.id and i.status <> 'void'
     where o.tenant_id = $1::uuid and o.id = $2::uuid",
    "select from invoices i,
          lateral (select coalesce(sum(p.amount), 0) as paid, coalesce(sum(p.refunded_amount), 0) as refunded
                   from payments p where p.tenant_id = i.tenant_id and p.invoice_id = i.id) sums
     where i.tenant_id = $1::uuid and i.id = $2::uuid
       and i.paid_amount = sums.paid and i.refunded_amount = sums.refunded",
    "select from payments p
     join invoices i on i.tenant_id = p.tenant_id and i.id = p.invoice_id
     where p.tenant_id = $1::uuid and p.id = $2::uuid
       and p.refunded_amount = (select coalesce(sum(r.amount), 0) from refunds r
                                where r.tenant_id = p.tenant_id and r.payment_id = p.id)
       and i.refunded_amount = (select sum(q.refunded_amount) from payments q
                                where q.tenant_id = i.tenant_id and q.invoice_id = i.id)",
];

/// SQL that stores 200,000 orders in one tenant, with customers, invoices, API keys and audit
/// events.
const LARGE_TENANT: &str = "
    -- No key decrypts these bytes, on which no plan depends.
    create temp table dummy as select '\\x01'::bytea || decode(repeat('00', 60), 'hex') as sealed;
    insert into customers (tenant_id, id, name, email, email_index, tax_id, tax_id_index, created_by, created_at,
                           updated_at)
    select (select palisade.current_tenant()), gen_random_uuid(), 'Customer ' || n, sealed,
           decode(md5(n::text), 'hex'), sealed, decode(md5('tax' || n), 'hex'), 'bulk',
           now() - n * interval '1 minute', now()
    from generate_series(1, 20000) n, dummy;
    insert into palisade.row_keys (tenant_id, sealed_table, row_id, data_key, wrapped, index_key)
    select c.tenant_id, 'customers', c.id, 1, sealed, 1 from customers c, dummy where c.created_by = 'bulk';
    create temp table bulk_customers as select id, row_number() over () as n from customers where created_by = 'bulk';
    create unique index on bulk_customers (n);
    insert into orders (tenant_id, id, customer_id, status, shipping_speed, total_amount, total_currency, created_by,
                        created_at, updated_at)
    select (select palisade.current_tenant()), gen_random_uuid(), s.id,
           (array['placed', 'invoiced', 'paid', 'fulfilled', 'cancelled'])[1 + g.n % 5], 'standard', 549, 'EUR', 'bulk',
           now() - g.n * interval '1 second', now()
    from generate_series(1, 200000) g (n) join bulk_customers s on s.n = 1 + g.n % 20000;
    insert into order_lines (tenant_id, order_id, line_no, sku, quantity, unit_price_amount)
    select tenant_id, id, 1, 'PAPER-A4', 1, 549 from orders where created_by = 'bulk';
    insert into invoices (tenant_id, id, order_id, number, status, total_amount, total_currency, paid_amount, issued_by,
                          issued_at, updated_at)
    select tenant_id, gen_random_uuid(), id, 10 + row_number() over (order by created_at), 'paid', 549, 'EUR', 549,
           'bulk', created_at, created_at
    from orders where created_by = 'bulk' and status = 'paid' and created_at > now() - interval '60000 seconds';
    insert into payments (tenant_id, id, invoice_id, amount, created_by, created_at)
    select tenant_id, gen_random_uuid(), id, 549, 'bulk', issued_at from invoices where issued_by = 'bulk';
    insert into palisade.subject_roles (tenant_id, subject, roles, as_of)
    select (select palisade.current_tenant()), 'creator-' || n, array['admin'], now() - n * interval '1 minute'
    from generate_series(0, 20000) n;
    insert into palisade.api_keys (tenant_id, id, name, secret_hash, scopes, created_by, authorized_at, created_at,
                                   expires_at)
    select (select palisade.current_tenant()), gen_random_uuid(), 'bulk', '$argon2id$v=19$m=19456,t=2,p=1$',
           array['orders:read'],
           'creator-' || n / 10, now(), now() - n * interval '1 minute', now() + interval '90 days'
    from generate_series(1, 20000) n;
    insert into palisade.audit_events (tenant_id, id, at, subject, client, action, object, trace_id, reason)
    select tenant_id, gen_random_uuid(), created_at, 'bulk', 'bulk', 'order_created', id::text, '', ''
    from orders where created_by = 'bulk'";

async fn large_database() -> Urls {
    let urls = SERVICE.database().await;
    let mut superuser = superuser(&urls).await;
    // Without foreign key checks this takes half the time.
    let settings = format!("set session_replication_role = replica; set app.tenant_id = '{}'", ACME.id);
    // A transaction of its own for each statement: a long one delays the seals of other tests.
    for sql in [settings.as_str()].into_iter().chain(LARGE_TENANT.split(';')).chain(["analyze"]) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut superuser).await.unwrap();
    }
    urls
}

/// Connects as the owner. Forced row-level security applies to it, so its plans equal those of the
/// service's logins.
async fn connect(urls: &Urls) -> PgConnection {
    PgConnection::connect(urls.owner.expose_secret()).await.unwrap()
}

async fn begin(connection: &mut PgConnection) -> sqlx::Transaction<'_, sqlx::Postgres> {
    let begin = format!("begin; set local app.tenant_id = '{}'", ACME.id);
    connection.begin_with(AssertSqlSafe(begin)).await.unwrap()
}

/// Every statement of the service on tenant tables, with the number of its parameters.
fn statements() -> Vec<(String, usize)> {
    let files = fs::read_dir(".sqlx").unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let checked = files.map(|text| serde_json::from_str::<Value>(&text).unwrap()).map(|file| {
        let parameters = file["describe"]["parameters"]["Left"].as_array().unwrap().len();
        (file["query"].as_str().unwrap().to_owned(), parameters)
    });
    let service = app();
    let rotations = service.sealed_tables().iter().flat_map(RegisteredTable::statements);
    let unchecked = FUNCTION_STATEMENTS
        .iter()
        .copied()
        .chain(rotations)
        .map(|sql| (sql.to_owned(), (1..20).filter(|n| sql.contains(&format!("${n}"))).count()));
    // Verification of the audit trail reads all of it, and `keys status` counts all keys of a tenant.
    let whole = [
        "pg_class",
        "_sqlx_migrations",
        "lock table",
        "from palisade.audit_seals",
        "palisade.audit_journal j",
        "count(*) from palisade.row_keys",
        "count(*) as \"records!\" from palisade.row_keys",
    ];
    let planned = |sql: &str| !whole.iter().any(|part| sql.contains(part));
    checked.chain(unchecked).filter(|(sql, _)| planned(sql)).collect()
}

/// The node types of a plan, each with its table.
fn nodes(plan: &Value, found: &mut Vec<(String, String)>) {
    let text = |name: &str| plan[name].as_str().unwrap_or_default().to_owned();
    found.push((text("Node Type"), text("Relation Name")));
    for inner in plan["Plans"].as_array().into_iter().flatten() {
        nodes(inner, found);
    }
}

async fn explain(connection: &mut PgConnection, sql: &str) -> Value {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(connection).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let plan: String = rows.last().unwrap().try_get_unchecked(0).unwrap();
    serde_json::from_str::<Value>(&plan).unwrap()[0]["Plan"].clone()
}

#[tokio::test]
async fn statements_use_indexes_and_deep_pages_cost_like_the_first() {
    let urls = large_database().await;
    let mut owner = connect(&urls).await;
    let mut tx = begin(&mut owner).await;
    // The generic plan, which must be good for all parameters.
    sqlx::raw_sql("set local plan_cache_mode = force_generic_plan").execute(&mut *tx).await.unwrap();
    let statements = statements();
    assert!(statements.len() > 30, "{}", statements.len());
    for (index, (sql, parameters)) in statements.iter().enumerate() {
        let nulls = vec!["null"; *parameters].join(", ");
        let arguments = if nulls.is_empty() { String::new() } else { format!("({nulls})") };
        sqlx::raw_sql(AssertSqlSafe(format!("prepare q{index} as {sql}"))).execute(&mut *tx).await.unwrap();
        // A sequential scan of a small table is a good plan. For those tables it suffices that an
        // index serves the statement once sequential scans are off.
        for (large_only, setting) in [(true, "on"), (false, "off")] {
            let explain_sql = format!(
                "set local enable_seqscan = {setting}; discard plans; explain (format json) execute q{index}{arguments}"
            );
            let mut found = Vec::new();
            nodes(&explain(&mut tx, &explain_sql).await, &mut found);
            let large = [
                "orders",
                "order_lines",
                "invoices",
                "payments",
                "customers",
                "row_keys",
                "api_keys",
                "subject_roles",
                "audit_events",
            ];
            let scans = found
                .iter()
                .filter(|(node, table)| node == "Seq Scan" && (!large_only || large.contains(&table.as_str())));
            assert_eq!(scans.collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "{sql}");
            let sorts = found.iter().any(|(node, _)| node.contains("Sort")) && sql.contains(" desc");
            assert!(!sorts, "a page must come from an index in order, without a sort:\n{sql}");
        }
    }
    assert_page_costs(&mut tx, &statements).await;
}

/// Asserts the number of blocks that the first page and deep pages read, for each filter of the
/// list of orders.
async fn assert_page_costs(connection: &mut PgConnection, statements: &[(String, usize)]) {
    let customer: String = sqlx::query_scalar("select customer_id::text from orders where created_by = 'bulk' limit 1")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    let filters = [
        ("order by", String::new()),
        ("and status = $6", ", 'paid'".to_owned()),
        // A status that no order has: without an index the filter would read every order.
        ("and status = $6", ", 'refunded'".to_owned()),
        ("and customer_id = $6 order", format!(", '{customer}'")),
        ("and customer_id = $6 and status = $7", format!(", '{customer}', 'placed'")),
    ];
    for (filter, arguments) in filters {
        let is_list = |sql: &str| sql.contains("from order_lines") && sql.contains(" desc") && sql.contains(filter);
        let unfiltered = |sql: &str| !sql.contains("$6");
        let index = statements.iter().position(|(sql, _)| is_list(sql) && (filter != "order by" || unfiltered(sql)));
        let index = index.unwrap_or_else(|| panic!("no list of orders with {filter:?}"));
        let mut blocks = Vec::new();
        for (from, before) in [("-infinity", "0 days"), ("-infinity", "2 days"), ("2020-01-01", "54 hours")] {
            let page = format!(
                "explain (analyze, buffers, format json) execute q{index}
                 ('{}', '{from}', now() - interval '{before}', '{}', 21{arguments})",
                ACME.id,
                uuid::Uuid::max()
            );
            let plan = explain(connection, &page).await;
            blocks.push(plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap());
        }
        let first = blocks[0];
        let deep = blocks[1].max(blocks[2]);
        // 20 orders with their lines, and the inner pages of each index.
        assert!(first < 300, "{filter:?}{arguments}: a page reads {first} blocks");
        assert!(deep <= first * 3 / 2 + 20, "{filter:?}: blocks of the first and of deep pages: {blocks:?}");
    }
}
