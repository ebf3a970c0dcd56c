-- The books: whatever code writes them, the database refuses
--
-- - states without a transition, and an order whose state contradicts its invoice;
-- - an invoice whose total, lines or number do not fit its order and the invoices before it;
-- - payments of an invoice that is not open, and amounts that are not the sums of payments and
--   refunds.
--
-- It does not compare the lines of an order with the total or the currency of the order, and accepts
-- an order without lines, and its invoice.
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

-- An invoice that was refunded in full is not paid.
alter table invoices add constraint paid_is_not_refunded
    check (status <> 'paid' or paid_amount > refunded_amount or total_amount = 0) not valid;

-- An invoice is not born void or refunded: nothing would tie it to the state of its order.
create function reject_new_invoice() returns trigger
    language plpgsql
as $$
begin
    raise exception 'an invoice cannot be issued as %', new.status
        using errcode = 'check_violation', constraint = tg_name;
end
$$;
create trigger invoice_is_new before insert on invoices
    for each row when (new.status not in ('open', 'paid')) execute function reject_new_invoice();

-- Payments are for open invoices. The sums below make each payment raise the paid amount.
create function reject_payment() returns trigger
    language plpgsql
as $$
begin
    raise exception 'invoice % is %, and takes no payment', old.id, old.status
        using errcode = 'check_violation', constraint = tg_name;
end
$$;
create trigger payment_of_open_invoice before update of paid_amount on invoices
    for each row when (old.paid_amount < new.paid_amount and old.status <> 'open')
    execute function reject_payment();

-- Numbers of invoices have no gaps: the counter goes up by one, each time with its invoice, and no
-- invoice is ahead of it.
create function reject_invoice_number() returns trigger
    language plpgsql
as $$
begin
    raise exception 'the last invoice number cannot change from % to %', old.last_number, new.last_number
        using errcode = 'check_violation', constraint = tg_name;
end
$$;
create trigger next_invoice_number before update on invoice_numbers
    for each row when (new.tenant_id <> old.tenant_id or new.last_number <> old.last_number + 1)
    execute function reject_invoice_number();
create function check_invoice_numbers() returns trigger
    language plpgsql
as $$
begin
    if tg_op = 'INSERT' and new.last_number
            <> (select count(*) from invoices i where i.tenant_id = new.tenant_id and i.number <= new.last_number)
       or not exists (select from invoices i where i.tenant_id = new.tenant_id and i.number = new.last_number) then
        raise exception 'invoice number % is missing', new.last_number
            using errcode = 'check_violation', constraint = 'numbers_without_gaps';
    end if;
    return null;
end
$$;
create constraint trigger numbers_without_gaps after insert or update on invoice_numbers
    deferrable initially deferred for each row execute function check_invoice_numbers();

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
    if not exists (
        select from invoice_numbers n where n.tenant_id = new.tenant_id and n.last_number >= new.number
    ) then
        raise exception 'invoice number % is not the next', new.number
            using errcode = 'check_violation', constraint = 'invoice_number';
    end if;
    return null;
end
$$;
create trigger invoice_total after insert on invoices
    for each row execute function check_invoice_total();

-- The lines of an invoice come in one statement and add up to its total, so an issued invoice takes
-- no more lines. Nothing checks the lines of orders: orders are created more often, and the invoice
-- takes its lines from its order.
create function check_invoice_lines() returns trigger
    language plpgsql
as $$
begin
    if exists (
        select from (select l.tenant_id, l.invoice_id, min(l.line_no) as first_line,
                            sum(l.quantity * l.unit_price_amount) as total
                     from new_lines l group by l.tenant_id, l.invoice_id) n
        left join invoices i on i.tenant_id = n.tenant_id and i.id = n.invoice_id
        where n.first_line <> 1 or n.total is distinct from i.total_amount
    ) then
        raise exception 'these lines do not add up to the total of their invoice'
            using errcode = 'check_violation', constraint = 'invoice_lines_total';
    end if;
    return null;
end
$$;
create trigger invoice_lines_total after insert on invoice_lines referencing new table as new_lines
    for each statement execute function check_invoice_lines();

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
-- CRYPTO-06): palisade.clear_blind_indexes does, with the rights of the owner.
create function reject_unindexed_customer() returns trigger
    language plpgsql
as $$
begin
    raise exception 'customer % needs the blind index of its e-mail address', new.id
        using errcode = 'check_violation', constraint = 'email_is_indexed';
end
$$;
create trigger reject_unindexed_customer before insert or update of email_index on customers
    for each row when (new.email_index is null and new.erased_at is null
                       and pg_has_role(current_user, 'app_writer', 'member'))
    execute function reject_unindexed_customer();

revoke all on all functions in schema public from public;
