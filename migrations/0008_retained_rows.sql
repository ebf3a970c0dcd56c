-- What outlives a tenant: invoices with their payments, which tax law keeps, and the orders that
-- they are for, without note and customer (control CRYPTO-08). `tenant delete` deletes the rest.
set local lock_timeout = '5s';

select palisade.retain_rows('invoice_numbers', 'issued invoices');
select palisade.retain_rows('invoices', 'issued invoices');
select palisade.retain_rows('invoice_lines', 'issued invoices');
select palisade.retain_rows('payments', 'payments of issued invoices');
select palisade.retain_rows('refunds', 'refunds of issued invoices');
select palisade.retain_rows(
    'orders', 'orders of issued invoices',
    'exists (select from public.invoices i where i.tenant_id = r.tenant_id and i.order_id = r.id)',
    array['customer_id', 'note']);
