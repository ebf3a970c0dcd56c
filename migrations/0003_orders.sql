-- Orders with their lines.
set local lock_timeout = '5s';

create table orders (
    tenant_id uuid not null,
    id uuid not null,
    customer_id uuid,
    status text not null
        check (status in ('placed', 'invoiced', 'paid', 'fulfilled', 'cancelled', 'refunded')),
    shipping_speed text not null check (shipping_speed in ('standard', 'express')),
    note text check (length(note) between 1 and 500),
    total_amount bigint not null check (total_amount >= 0),
    total_currency text not null check (total_currency ~ '^[A-Z]{3}$'),
    created_by text not null check (length(created_by) between 1 and 255),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, id),
    foreign key (tenant_id, customer_id) references customers (tenant_id, id)
);
create index orders_by_time on orders (tenant_id, created_at desc, id desc);
create index orders_by_status on orders (tenant_id, status, created_at desc, id desc);
create index orders_by_customer on orders (tenant_id, customer_id, created_at desc, id desc);

create table order_lines (
    tenant_id uuid not null,
    order_id uuid not null,
    line_no smallint not null check (line_no between 1 and 50),
    sku text not null,
    quantity integer not null check (quantity between 1 and 100),
    unit_price_amount bigint not null check (unit_price_amount >= 0),
    primary key (tenant_id, order_id, line_no),
    unique (tenant_id, order_id, sku),
    foreign key (tenant_id, order_id) references orders (tenant_id, id),
    foreign key (tenant_id, sku) references products (tenant_id, sku)
);
select palisade.isolate_tenants('orders', 'order_lines');

-- Refuses an order for an erased customer. The share lock makes the creation of an order and an
-- erasure wait for each other.
create function reject_order_of_erased_customer() returns trigger
    language plpgsql
as $$
begin
    perform from customers c
    where c.tenant_id = new.tenant_id and c.id = new.customer_id and c.erased_at is null for share;
    if not found then
        raise exception 'no such customer'
            using errcode = 'foreign_key_violation', constraint = 'customer_exists';
    end if;
    return new;
end
$$;
create trigger reject_order_of_erased_customer before insert on orders
    for each row when (new.customer_id is not null) execute function reject_order_of_erased_customer();

-- An order with its lines.
create view order_documents with (security_invoker = true) as
select o.tenant_id, o.id, o.customer_id, o.status, o.shipping_speed, o.note, o.total_amount, o.total_currency,
       o.created_by, o.created_at, o.updated_at,
       (select coalesce(jsonb_agg(jsonb_build_object(
                   'sku', l.sku, 'quantity', l.quantity, 'unit_price_amount', l.unit_price_amount)
                   order by l.line_no), '[]')
        from order_lines l where l.tenant_id = o.tenant_id and l.order_id = o.id) as lines
from orders o;

revoke all on all functions in schema public from public;
grant select on orders, order_lines to app_writer, app_reader, app_auditor;
grant select on order_documents to app_writer, app_reader;
grant insert on orders, order_lines to app_writer;
grant update (status, updated_at) on orders to app_writer;
