-- The catalogue of each tenant, and the rights to the schema of the service.
--
-- Every table of the service belongs to tenants: its key begins with tenant_id, it refers to rows
-- of the same tenant only, and palisade.isolate_tenants confines it.
set local lock_timeout = '5s';

revoke all on schema public from public;
grant usage on schema public to app_writer, app_reader, app_auditor;
-- At startup, the service compares the applied migrations with those of the binary.
grant select on _sqlx_migrations to app_writer, app_reader;

create table products (
    tenant_id uuid not null,
    sku text not null check (sku ~ '^[A-Z0-9-]{3,64}$'),
    name text not null check (length(name) between 1 and 200),
    price_amount bigint not null check (price_amount >= 0),
    price_currency text not null check (price_currency ~ '^[A-Z]{3}$'),
    created_at timestamptz not null default now(),
    primary key (tenant_id, sku)
);
select palisade.isolate_tenants('products');

revoke all on all functions in schema public from public;
grant select on products to app_writer, app_reader, app_auditor;
grant insert, update (name, price_amount, price_currency) on products to app_writer;
