-- The tables of the bare service: what its operations need, and no more.
create table products (
    tenant_id uuid not null, sku text not null, name text not null,
    price_amount bigint not null, price_currency text not null,
    primary key (tenant_id, sku)
);
create table customers (
    tenant_id uuid not null, id uuid not null, name text not null, email text not null, phone text not null,
    primary key (tenant_id, id)
);
create table orders (
    tenant_id uuid not null, id uuid not null, customer_id uuid, status text not null, shipping_speed text not null,
    total_amount bigint not null, total_currency text not null, created_by text not null,
    created_at timestamptz not null, updated_at timestamptz not null,
    primary key (tenant_id, id)
);
create index orders_by_time on orders (tenant_id, created_at desc, id desc);
create table order_lines (
    tenant_id uuid not null, order_id uuid not null, line_no smallint not null, sku text not null,
    quantity integer not null, unit_price_amount bigint not null,
    primary key (tenant_id, order_id, line_no),
    foreign key (tenant_id, order_id) references orders (tenant_id, id)
);
create table invoices (
    tenant_id uuid not null, id uuid not null, order_id uuid not null, number bigint not null, status text not null,
    total_amount bigint not null, total_currency text not null, paid_amount bigint not null default 0,
    issued_by text not null, issued_at timestamptz not null, updated_at timestamptz not null,
    primary key (tenant_id, id),
    foreign key (tenant_id, order_id) references orders (tenant_id, id)
);
create table payments (
    tenant_id uuid not null, id uuid not null, invoice_id uuid not null, amount bigint not null,
    created_by text not null, created_at timestamptz not null,
    primary key (tenant_id, id),
    foreign key (tenant_id, invoice_id) references invoices (tenant_id, id)
);
-- The service connects as the owner of the database.
grant all on all tables in schema public to app_owner;
