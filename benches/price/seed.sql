-- The data of a measurement, as superuser: {tenants} tenants with {orders} orders together, three
-- lines each. Every value follows from the number of the order; `operations.rs` knows the rules.
-- A fifth of the first 100,000 orders has an open invoice. A customer has about 50 orders.
set session_replication_role = replica;
create temp table tenant as
select t as no, ('0190a000-0000-7000-8001-' || lpad(to_hex(t), 12, '0'))::uuid as id
from generate_series(0, {tenants} - 1) t;
insert into products (tenant_id, sku, name, price_amount, price_currency)
select id, 'SKU-' || lpad(i::text, 4, '0'), 'Product ' || i, 100 + i * 37, 'EUR'
from tenant, generate_series(1, 200) i;
insert into orders (tenant_id, id, customer_id, status, shipping_speed, total_amount, total_currency, created_by,
                    created_at, updated_at)
select t.id, ('0190a000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
       ('0190a000-0000-7000-8002-' || lpad(to_hex(n / {tenants} % ({orders} / {tenants} / 50 + 1)), 12, '0'))::uuid,
       case when n / {tenants} % 5 = 0 and n <= 100000 then 'invoiced' when n / {tenants} % 5 = 1 then 'cancelled' else 'placed' end,
       'standard',
       (select sum((k + 1) * (100 + ((n * 7 + k * 61) % 200 + 1) * 37)) from generate_series(0, 2) k), 'EUR', 'seed',
       timestamptz '2025-01-01 00:00:00Z' + n * interval '1 second',
       timestamptz '2025-01-01 00:00:00Z' + n * interval '1 second'
from generate_series(1, {orders}) n join tenant t on t.no = n % {tenants};
insert into order_lines (tenant_id, order_id, line_no, sku, quantity, unit_price_amount)
select t.id, ('0190a000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, k + 1,
       'SKU-' || lpad(((n * 7 + k * 61) % 200 + 1)::text, 4, '0'), k + 1, 100 + ((n * 7 + k * 61) % 200 + 1) * 37
from generate_series(1, {orders}) n join tenant t on t.no = n % {tenants}, generate_series(0, 2) k;
insert into invoices (tenant_id, id, order_id, number, status, total_amount, total_currency, issued_by, issued_at,
                      updated_at)
select t.id, ('0190a000-0000-7000-8003-' || lpad(to_hex(n), 12, '0'))::uuid,
       ('0190a000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, n, 'open',
       (select sum((k + 1) * (100 + ((n * 7 + k * 61) % 200 + 1) * 37)) from generate_series(0, 2) k), 'EUR', 'seed',
       now(), now()
from generate_series(1, least({orders}, 100000)) n join tenant t on t.no = n % {tenants}
where n / {tenants} % 5 = 0;
