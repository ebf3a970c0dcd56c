-- Invoices, payments and refunds. Sums can neither pass each other nor go below zero, whatever the code does.

-- The last invoice number of each tenant. A number is taken in the transaction that uses it, so a
-- rollback gives it back and there are no gaps.
create table invoice_numbers (
    tenant_id uuid not null primary key,
    last_number bigint not null check (last_number > 0)
);

create table invoices (
    tenant_id uuid not null,
    id uuid not null,
    order_id uuid not null,
    number bigint not null check (number > 0),
    status text not null check (status in ('open', 'paid', 'void', 'refunded')),
    total_amount bigint not null check (total_amount >= 0),
    total_currency text not null check (total_currency ~ '^[A-Z]{3}$'),
    paid_amount bigint not null default 0,
    refunded_amount bigint not null default 0,
    issued_by text not null check (length(issued_by) between 1 and 255),
    issued_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, id),
    unique (tenant_id, number),
    foreign key (tenant_id, order_id) references orders (tenant_id, id),
    constraint refunds_within_payments check (0 <= refunded_amount and refunded_amount <= paid_amount),
    constraint payments_within_total check (paid_amount - refunded_amount <= total_amount),
    constraint status_fits_sums check (
        case status when 'open' then paid_amount - refunded_amount < total_amount
                    when 'void' then paid_amount = refunded_amount
                    when 'refunded' then paid_amount = refunded_amount and paid_amount > 0
                    else paid_amount >= total_amount end)
);

-- At most one invoice counts for an order.
create unique index invoices_one_per_order on invoices (tenant_id, order_id) where status <> 'void';
create index invoices_by_time on invoices (tenant_id, issued_at desc, id desc);

-- Frozen when issued: no login of the service may update them.
create table invoice_lines (
    tenant_id uuid not null,
    invoice_id uuid not null,
    line_no smallint not null check (line_no between 1 and 50),
    sku text not null,
    description text not null,
    quantity integer not null check (quantity between 1 and 100),
    unit_price_amount bigint not null check (unit_price_amount >= 0),
    primary key (tenant_id, invoice_id, line_no),
    foreign key (tenant_id, invoice_id) references invoices (tenant_id, id)
);

create table payments (
    tenant_id uuid not null,
    id uuid not null,
    invoice_id uuid not null,
    amount bigint not null check (amount > 0),
    refunded_amount bigint not null default 0,
    reference text check (length(reference) between 1 and 100),
    created_by text not null check (length(created_by) between 1 and 255),
    created_at timestamptz not null,
    primary key (tenant_id, id),
    foreign key (tenant_id, invoice_id) references invoices (tenant_id, id),
    constraint refunds_within_payment check (refunded_amount between 0 and amount)
);
create index payments_by_invoice on payments (tenant_id, invoice_id, created_at, id);

create table refunds (
    tenant_id uuid not null,
    id uuid not null,
    payment_id uuid not null,
    amount bigint not null check (amount > 0),
    reason text check (length(reason) between 1 and 200),
    created_by text not null check (length(created_by) between 1 and 255),
    created_at timestamptz not null,
    primary key (tenant_id, id),
    foreign key (tenant_id, payment_id) references payments (tenant_id, id)
);
create index refunds_by_payment on refunds (tenant_id, payment_id, created_at, id);

do $$
declare
    name text;
begin
    foreach name in array array['invoice_numbers', 'invoices', 'invoice_lines', 'payments', 'refunds'] loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy tenant_isolation on %I '
                       'using (tenant_id = current_tenant()) with check (tenant_id = current_tenant())', name);
    end loop;
end
$$;

grant select, insert on invoice_numbers, invoices, invoice_lines, payments, refunds to app_writer;
grant update (last_number) on invoice_numbers to app_writer;
grant update (status, paid_amount, refunded_amount, updated_at) on invoices to app_writer;
grant update (refunded_amount) on payments to app_writer;
grant select on invoices, invoice_lines, payments, refunds to app_reader;

-- The auditor reads the books and no customer data.
grant usage on schema public to app_auditor;
grant execute on function current_tenant() to app_auditor;
grant select on products, orders, order_lines, invoices, invoice_lines, payments, refunds to app_auditor;
