-- Customers, and who an order is for.

create table customers (
    tenant_id uuid not null,
    id uuid not null,
    -- Null once the customer is erased: the row stays, so that the books still add up.
    name text check (length(name) between 1 and 200),
    email text check (length(email) between 3 and 254),
    phone text check (length(phone) between 8 and 16),
    tax_id text check (length(tax_id) between 4 and 20),
    bank_account text check (length(bank_account) between 15 and 34),
    address text check (length(address) between 1 and 300),
    created_by text not null check (length(created_by) between 1 and 255),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    erased_at timestamptz,
    primary key (tenant_id, id),
    constraint erased_is_empty check (
        case when erased_at is null then name is not null and email is not null
             else coalesce(name, email, phone, tax_id, bank_account, address) is null end)
);

-- Each serves one list, newest first, with its filter.
create index customers_by_time on customers (tenant_id, created_at desc, id desc) where erased_at is null;
create index customers_by_email on customers (tenant_id, email, created_at desc, id desc) where erased_at is null;

alter table orders
    add column customer_id uuid,
    add foreign key (tenant_id, customer_id) references customers (tenant_id, id);

create index orders_by_time on orders (tenant_id, created_at desc, id desc);
create index orders_by_status on orders (tenant_id, status, created_at desc, id desc);
create index orders_by_customer on orders (tenant_id, customer_id, created_at desc, id desc);

-- Erasing is final, and nothing new refers to an erased customer, whatever the code does. The share lock makes
-- an order that is being placed and an erasure wait for each other.
create function stays_erased() returns trigger
    language plpgsql
as $$
begin
    raise exception 'an erased customer stays erased' using errcode = 'check_violation';
end
$$;
create trigger stays_erased before update on customers
    for each row when (old.erased_at is not null) execute function stays_erased();

create function customer_is_known() returns trigger
    language plpgsql
as $$
begin
    perform from customers c
    where c.tenant_id = new.tenant_id and c.id = new.customer_id and c.erased_at is null for share;
    if not found then
        raise exception 'no such customer'
            using errcode = 'foreign_key_violation', constraint = 'customer_is_known';
    end if;
    return new;
end
$$;
create trigger customer_is_known before insert on orders
    for each row when (new.customer_id is not null) execute function customer_is_known();

alter table customers enable row level security;
alter table customers force row level security;
create policy tenant_isolation on customers
    using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());

grant select, insert on customers to app_writer;
grant update (name, email, phone, tax_id, bank_account, address, updated_at, erased_at) on customers to app_writer;
grant select on customers to app_reader;

-- An administrator keeps the catalogue.
grant insert on products to app_writer;
grant update (name, price_amount, price_currency) on products to app_writer;
