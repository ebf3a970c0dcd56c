-- The books: the database refuses orders, invoices, payments and refunds that contradict each other,
-- whatever code writes them.
--
-- The transitions are those of `State::may_become` in src/domain; a test compares them. The other
-- checks run at the end of the transaction, since a payment changes several rows. A check that
-- cannot see its rows, because the tenant was changed, refuses the transaction. Amounts of issued
-- rows and totals need no check: no login of the service may update them.
set local lock_timeout = '5s';

create function reject_transition() returns trigger
    language plpgsql
as $$
begin
    raise exception 'a row of % cannot change from % to %', tg_table_name, old.status, new.status
        using errcode = 'check_violation', constraint = tg_name;
end
$$;
create trigger order_transition before update of status on orders
    for each row when (old.status <> new.status and (old.status, new.status) not in (
        ('placed', 'invoiced'), ('placed', 'paid'), ('placed', 'cancelled'),
        ('invoiced', 'placed'), ('invoiced', 'paid'), ('invoiced', 'cancelled'),
        ('paid', 'fulfilled'), ('paid', 'refunded')))
    execute function reject_transition();
create trigger invoice_transition before update of status on invoices
    for each row when (old.status <> new.status and (old.status, new.status) not in (
        ('open', 'paid'), ('open', 'void'), ('paid', 'refunded')))
    execute function reject_transition();

-- An invoice has the total and the currency of its order.
create function check_invoice_total() returns trigger
    language plpgsql
as $$
begin
    if not exists (
        select from orders o
        where o.tenant_id = new.tenant_id and o.id = new.order_id
          and o.total_amount = new.total_amount and o.total_currency = new.total_currency
    ) then
        raise exception 'the total of invoice % is not that of its order', new.id
            using errcode = 'check_violation', constraint = 'invoice_total';
    end if;
    return null;
end
$$;
create trigger invoice_total after insert on invoices
    for each row execute function check_invoice_total();

-- The state of an order fits its invoice that is not void. The index invoices_one_per_order serves
-- the join.
create function check_order_state() returns trigger
    language plpgsql
as $$
declare
    order_to_check uuid;
begin
    if tg_table_name = 'orders' then
        order_to_check := new.id;
    else
        order_to_check := new.order_id;
    end if;
    if not exists (
        select from orders o
        left join invoices i on i.tenant_id = o.tenant_id and i.order_id = o.id and i.status <> 'void'
        where o.tenant_id = new.tenant_id and o.id = order_to_check
          and case o.status when 'invoiced' then i.status = 'open'
                            when 'paid' then i.status = 'paid'
                            when 'refunded' then i.status = 'refunded'
                            when 'fulfilled' then i.status in ('paid', 'refunded')
                            else i.status is null end
    ) then
        raise exception 'the state of order % does not fit its invoice', order_to_check
            using errcode = 'check_violation', constraint = 'order_fits_invoice';
    end if;
    return null;
end
$$;
create constraint trigger new_order_fits_invoice after insert on orders
    deferrable initially deferred
    for each row when (new.status <> 'placed') execute function check_order_state();
create constraint trigger order_fits_invoice after update of status on orders
    deferrable initially deferred
    for each row when (old.status <> new.status) execute function check_order_state();
create constraint trigger new_invoice_fits_order after insert on invoices
    deferrable initially deferred
    for each row execute function check_order_state();
create constraint trigger invoice_fits_order after update of status on invoices
    deferrable initially deferred
    for each row when (old.status <> new.status) execute function check_order_state();

-- The amounts of an invoice are the sums of its payments.
create function check_invoice_sums() returns trigger
    language plpgsql
as $$
declare
    invoice_to_check uuid;
begin
    if tg_table_name = 'invoices' then
        invoice_to_check := new.id;
    else
        invoice_to_check := new.invoice_id;
    end if;
    if not exists (
        select from invoices i,
             lateral (select coalesce(sum(p.amount), 0) as paid, coalesce(sum(p.refunded_amount), 0) as refunded
                      from payments p where p.tenant_id = i.tenant_id and p.invoice_id = i.id) sums
        where i.tenant_id = new.tenant_id and i.id = invoice_to_check
          and i.paid_amount = sums.paid and i.refunded_amount = sums.refunded
    ) then
        raise exception 'the amounts of invoice % are not the sums of its payments', invoice_to_check
            using errcode = 'check_violation', constraint = 'invoice_sums';
    end if;
    return null;
end
$$;
create constraint trigger new_invoice_sums after insert on invoices
    deferrable initially deferred
    for each row when (new.paid_amount <> 0 or new.refunded_amount <> 0) execute function check_invoice_sums();
create constraint trigger invoice_sums after update of paid_amount, refunded_amount on invoices
    deferrable initially deferred
    for each row when (old.paid_amount <> new.paid_amount or old.refunded_amount <> new.refunded_amount)
    execute function check_invoice_sums();
create constraint trigger new_payment_sums after insert on payments
    deferrable initially deferred
    for each row execute function check_invoice_sums();

-- The refunded amount of a payment is the sum of its refunds, and that of its invoice the sum of its
-- payments.
create function check_payment_sums() returns trigger
    language plpgsql
as $$
declare
    payment_to_check uuid;
begin
    if tg_table_name = 'payments' then
        payment_to_check := new.id;
    else
        payment_to_check := new.payment_id;
    end if;
    if not exists (
        select from payments p
        join invoices i on i.tenant_id = p.tenant_id and i.id = p.invoice_id
        where p.tenant_id = new.tenant_id and p.id = payment_to_check
          and p.refunded_amount = (select coalesce(sum(r.amount), 0) from refunds r
                                   where r.tenant_id = p.tenant_id and r.payment_id = p.id)
          and i.refunded_amount = (select sum(q.refunded_amount) from payments q
                                   where q.tenant_id = i.tenant_id and q.invoice_id = i.id)
    ) then
        raise exception 'payment %, its refunds and its invoice have other refunded amounts', payment_to_check
            using errcode = 'check_violation', constraint = 'payment_sums';
    end if;
    return null;
end
$$;
create constraint trigger new_refund_sums after insert on refunds
    deferrable initially deferred
    for each row execute function check_payment_sums();
create constraint trigger new_payment_refunds after insert on payments
    deferrable initially deferred
    for each row when (new.refunded_amount <> 0) execute function check_payment_sums();
create constraint trigger payment_sums after update of refunded_amount on payments
    deferrable initially deferred
    for each row when (old.refunded_amount <> new.refunded_amount) execute function check_payment_sums();

-- A customer without a row key is listed as unreadable, instead of missing.
create or replace view customer_documents with (security_invoker = true) as
select c.*, k.data_key, k.wrapped as wrapped_key, k.index_key
from customers c
left join palisade.row_keys k on k.tenant_id = c.tenant_id and k.sealed_table = 'customers' and k.row_id = c.id
where c.erased_at is null;

-- Only the destruction of the data keys takes a living customer out of the blind index (control
-- CRYPTO-06). The owner reads the data keys.
create function reject_unindexed_customer() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from palisade.data_keys k where k.of_tenant = new.tenant_id)
       or exists (select from palisade.data_keys k where k.of_tenant = new.tenant_id and k.wrapped is not null) then
        raise exception 'a customer needs the blind index of its e-mail address'
            using errcode = 'check_violation', constraint = 'email_is_indexed';
    end if;
    return new;
end
$$;
create trigger reject_unindexed_customer before insert or update of email_index on customers
    for each row when (new.email_index is null and new.erased_at is null)
    execute function reject_unindexed_customer();

revoke all on all functions in schema public from public;
