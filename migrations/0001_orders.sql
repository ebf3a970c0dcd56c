-- Products and orders of many tenants.
--
-- Every tenant table starts its key with tenant_id, refers to others of the same tenant only,
-- and has row-level security that holds for its owner too (control AUTHZ-07).

-- Who runs this may differ between deployments; who may do what does not.
revoke all on schema public from public;
grant usage on schema public to app_writer, app_reader;

-- The tenant of the current transaction, null if none was set. After a transaction the
-- setting is '' and not null, hence the nullif.
create function current_tenant() returns uuid
    language sql stable parallel safe
    return nullif(current_setting('app.tenant_id', true), '')::uuid;

create table products (
    tenant_id uuid not null,
    sku text not null check (sku ~ '^[A-Z0-9-]{3,64}$'),
    name text not null check (length(name) between 1 and 200),
    price_amount bigint not null check (price_amount >= 0),
    price_currency text not null check (price_currency ~ '^[A-Z]{3}$'),
    created_at timestamptz not null default now(),
    primary key (tenant_id, sku)
);

create table orders (
    tenant_id uuid not null,
    id uuid not null,
    status text not null
        check (status in ('placed', 'invoiced', 'paid', 'fulfilled', 'cancelled', 'refunded')),
    shipping_speed text not null check (shipping_speed in ('standard', 'express')),
    note text check (length(note) between 1 and 500),
    total_amount bigint not null check (total_amount >= 0),
    total_currency text not null check (total_currency ~ '^[A-Z]{3}$'),
    created_by text not null check (length(created_by) between 1 and 255),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    -- Also serves the list: newest first is id descending, since ids are UUIDv7.
    primary key (tenant_id, id)
);

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

alter table products enable row level security;
alter table products force row level security;
alter table orders enable row level security;
alter table orders force row level security;
alter table order_lines enable row level security;
alter table order_lines force row level security;

create policy tenant_isolation on products
    using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());
create policy tenant_isolation on orders
    using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());
create policy tenant_isolation on order_lines
    using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());

grant execute on function current_tenant() to app_writer, app_reader;
grant select on products, orders, order_lines to app_writer, app_reader;
grant insert on orders, order_lines to app_writer;
grant update (status, updated_at) on orders to app_writer;
-- The service refuses to start against a schema it was not built for, so it reads the version.
grant select on _sqlx_migrations to app_writer, app_reader;
