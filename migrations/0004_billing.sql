-- Invoices, payments and refunds. The constraints keep each sum within the sum above it and above
-- zero.
set local lock_timeout = '5s';

-- The last invoice number of each tenant. A number is assigned in the transaction of the invoice,
-- so a rollback reverts it and there are no gaps.
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

-- At most one invoice of an order is not void.
create unique index invoices_one_per_order on invoices (tenant_id, order_id) where status <> 'void';
create index invoices_by_time on invoices (tenant_id, issued_at desc, id desc);

-- No login of the service can update or delete the lines of an issued invoice.
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
select palisade.isolate_tenants('invoice_numbers', 'invoices', 'invoice_lines', 'payments', 'refunds');

-- An invoice with its lines, and its payments with their refunds.
create view invoice_documents with (security_invoker = true) as
select i.tenant_id, i.id, i.order_id, i.number, i.status, i.total_amount, i.total_currency, i.paid_amount,
       i.refunded_amount, i.issued_by, i.issued_at, i.updated_at,
       (select coalesce(jsonb_agg(jsonb_build_object(
                   'sku', l.sku, 'description', l.description, 'quantity', l.quantity,
                   'unit_price_amount', l.unit_price_amount) order by l.line_no), '[]')
        from invoice_lines l where l.tenant_id = i.tenant_id and l.invoice_id = i.id) as lines,
       (select coalesce(jsonb_agg(jsonb_build_object(
                   'id', p.id, 'amount', p.amount, 'refunded_amount', p.refunded_amount, 'reference', p.reference,
                   'created_by', p.created_by, 'created_at', p.created_at,
                   'refunds', (select coalesce(jsonb_agg(jsonb_build_object(
                                          'id', r.id, 'amount', r.amount, 'reason', r.reason,
                                          'created_by', r.created_by, 'created_at', r.created_at)
                                          order by r.created_at, r.id), '[]')
                               from refunds r where r.tenant_id = p.tenant_id and r.payment_id = p.id))
                   order by p.created_at, p.id), '[]')
        from payments p where p.tenant_id = i.tenant_id and p.invoice_id = i.id) as payments
from invoices i;

revoke all on all functions in schema public from public;
grant select on invoices, invoice_lines, payments, refunds to app_writer, app_reader, app_auditor;
grant select on invoice_documents to app_writer, app_reader;
grant insert on invoices, invoice_lines, payments, refunds to app_writer;
grant select, insert, update (last_number) on invoice_numbers to app_writer;
grant update (status, paid_amount, refunded_amount, updated_at) on invoices to app_writer;
grant update (refunded_amount) on payments to app_writer;
