-- Demo data of one tenant, except its customers. The setting demo.tenant holds the tenant's number N, which is
-- part of every id: orders begin with 0190a00N, invoices with 0190a02N, payments with 0190a03N. Rows that
-- exist already stay as they are.

create function pg_temp.demo_id(kind integer, n integer) returns uuid
    language sql
    return format('0190a0%s%s-0000-7000-8000-00000000000%s', kind, current_setting('demo.tenant'), n)::uuid;

insert into products (tenant_id, sku, name, price_amount, price_currency)
select palisade.current_tenant(), sku, name, price, 'EUR'
from (values ('PAPER-A4', 'Paper A4, 500 sheets', 549), ('PEN-BLUE', 'Ballpoint pen, blue', 129),
             ('DESK-160', 'Standing desk, 160 cm', 48900), ('CHAIR-PRO', 'Office chair', 32900),
             ('LAMP-LED', 'Desk lamp, LED', 5990)) as product (sku, name, price)
on conflict do nothing;

-- Six orders: three to invoice, one invoiced, one paid, one cancelled.
insert into orders (tenant_id, id, customer_id, status, shipping_speed, note, total_amount, total_currency, created_by,
                    created_at, updated_at)
select palisade.current_tenant(), pg_temp.demo_id(0, n), pg_temp.demo_id(1, 1 + n % 3),
       case n when 4 then 'invoiced' when 5 then 'paid' when 6 then 'cancelled' else 'placed' end,
       case when n % 2 = 0 then 'express' else 'standard' end, null, n * 549 + 129, 'EUR', 'demo',
       now() - (7 - n) * interval '1 hour', now() - (7 - n) * interval '1 hour'
from generate_series(1, 6) n
on conflict do nothing;

insert into order_lines (tenant_id, order_id, line_no, sku, quantity, unit_price_amount)
select o.tenant_id, o.id, line.no, line.sku,
       case line.no when 1 then (o.total_amount - 129) / 549 else 1 end, line.price
from orders o, (values (1, 'PAPER-A4', 549), (2, 'PEN-BLUE', 129)) as line (no, sku, price)
where o.created_by = 'demo'
on conflict do nothing;

insert into invoice_numbers (tenant_id, last_number) values (palisade.current_tenant(), 2) on conflict do nothing;

insert into invoices (tenant_id, id, order_id, number, status, total_amount, total_currency, paid_amount, issued_by,
                      issued_at, updated_at)
select o.tenant_id, pg_temp.demo_id(2, n), o.id, n, case n when 1 then 'paid' else 'open' end, o.total_amount,
       o.total_currency, case n when 1 then o.total_amount else 0 end, 'demo', o.created_at, o.created_at
from (values (1, 5, 'paid'), (2, 4, 'invoiced')) as invoice (n, of_order, status)
join orders o on o.id = pg_temp.demo_id(0, of_order) and o.status = invoice.status
on conflict do nothing;

insert into invoice_lines (tenant_id, invoice_id, line_no, sku, description, quantity, unit_price_amount)
select i.tenant_id, i.id, l.line_no, l.sku, p.name, l.quantity, l.unit_price_amount
from invoices i
join order_lines l on l.tenant_id = i.tenant_id and l.order_id = i.order_id
join products p on p.tenant_id = l.tenant_id and p.sku = l.sku
where i.issued_by = 'demo'
on conflict do nothing;

insert into payments (tenant_id, id, invoice_id, amount, reference, created_by, created_at)
select i.tenant_id, pg_temp.demo_id(3, 1), i.id, i.paid_amount, 'bank transfer 2026-0001', 'demo', i.issued_at
from invoices i
where i.id = pg_temp.demo_id(2, 1)
on conflict do nothing;

drop function pg_temp.demo_id(integer, integer);
