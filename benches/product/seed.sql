-- The data set of the comparison: two tenants with 50,000 orders of three lines each.
-- psql variables: tenant_a, tenant_b.
insert into products (tenant_id, sku, name, price_amount, price_currency)
select t.id, 'SKU-' || lpad(i::text, 4, '0'), 'Product ' || i, 100 + i * 37 % 9900 + t.extra, 'EUR'
  from (values (:'tenant_a'::uuid, 0), (:'tenant_b'::uuid, 5000)) t(id, extra), generate_series(1, 200) i;
create temp table seed as
select n, ('0190a000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid as id,
       case n % 2 when 1 then :'tenant_a' else :'tenant_b' end::uuid as tenant_id
  from generate_series(1, 100000) n;
create temp table seed_lines as
select s.n, s.id, k, s.tenant_id, p.sku, (s.n + k) % 5 + 1 as quantity, p.price_amount
  from seed s cross join generate_series(1, 3) k
  join products p on p.tenant_id = s.tenant_id and p.sku = 'SKU-' || lpad(((s.n * 7 + k * 61) % 200 + 1)::text, 4, '0');
insert into orders (tenant_id, id, status, shipping_speed, total_amount, total_currency, created_by, created_at, updated_at)
select s.tenant_id, s.id, 'placed', case s.n % 3 when 0 then 'express' else 'standard' end,
       sum(l.quantity * l.price_amount), 'EUR', 'seed', timestamptz '2025-01-01 00:00:00Z' + s.n * interval '1 second',
       timestamptz '2025-01-01 00:00:00Z' + s.n * interval '1 second'
  from seed s join seed_lines l using (n) group by s.n, s.id, s.tenant_id order by s.n;
insert into order_lines (tenant_id, order_id, line_no, sku, quantity, unit_price_amount)
select tenant_id, id, k, sku, quantity, price_amount from seed_lines order by n, k;
vacuum analyze;
