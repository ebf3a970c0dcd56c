-- What makes a read or a create one message to the database and yet confined to its tenant.
--
-- The service sends each of these as a statement of its own, outside of any transaction block, so the
-- statement *is* the transaction and the tenant set in it ends with it: no connection can carry a tenant
-- into another request. A read sets the tenant and then selects, in the order PL/pgSQL gives its statements
-- and no planner changes. Everything runs with the rights of the caller (security invoker), under
-- row-level security like any other statement.

-- Sets the tenant of the current transaction, and gives it back. Refuses to change one that is set.
create function enter_tenant(tenant uuid) returns uuid
    language plpgsql volatile
as $$
begin
    if current_tenant() is not null then
        raise exception 'the transaction has a tenant already';
    end if;
    perform set_config('app.tenant_id', tenant::text, true);
    return tenant;
end
$$;

-- An order with its lines.
create view order_documents with (security_invoker = true) as
select o.tenant_id, o.id, o.customer_id, o.status, o.shipping_speed, o.note, o.total_amount, o.total_currency,
       o.created_by, o.created_at, o.updated_at,
       (select coalesce(jsonb_agg(jsonb_build_object(
                   'sku', l.sku, 'quantity', l.quantity, 'unit_price_amount', l.unit_price_amount)
                   order by l.line_no), '[]')
        from order_lines l where l.tenant_id = o.tenant_id and l.order_id = o.id) as lines
from orders o;

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

create function read_order(tenant uuid, wanted uuid) returns setof order_documents
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    return query select * from order_documents o where o.tenant_id = tenant and o.id = wanted;
end
$$;

create function read_invoice(tenant uuid, wanted uuid) returns setof invoice_documents
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    return query select * from invoice_documents i where i.tenant_id = tenant and i.id = wanted;
end
$$;

create function read_product(tenant uuid, wanted text) returns setof products
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    return query select * from products p where p.tenant_id = tenant and p.sku = wanted;
end
$$;

create function read_customer(tenant uuid, wanted uuid) returns setof customers
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    return query select * from customers c where c.tenant_id = tenant and c.id = wanted and c.erased_at is null;
end
$$;

-- What was answered to a request with this key, if anything was and the answer still counts. Answers of
-- the tenant that no longer count are deleted on the way, a few at a time.
create function earlier_answer(
    tenant uuid, of_subject text, of_client text, of_operation text, of_key text, at_time timestamptz)
    returns setof idempotency_keys
    language plpgsql volatile strict
as $$
begin
    delete from idempotency_keys k
    where k.tenant_id = tenant and k.subject = of_subject and k.client = of_client and k.operation = of_operation
      and k.key = of_key and k.expires_at <= at_time;
    delete from idempotency_keys k
    where k.tenant_id = tenant and k.ctid = any (array(
        select e.ctid from idempotency_keys e
        where e.tenant_id = tenant and e.expires_at <= at_time
        order by e.expires_at limit 20 for update skip locked));
    return query
    select * from idempotency_keys k
    where k.tenant_id = tenant and k.subject = of_subject and k.client = of_client and k.operation = of_operation
      and k.key = of_key;
end
$$;

-- The same, and keeps other requests with the key out until the transaction ends; alone is false if one is at work.
-- First the lock, then the look: the look is a statement of its own and so sees what was committed before it.
create function claim_key(
    tenant uuid, of_subject text, of_client text, of_operation text, of_key text, at_time timestamptz)
    returns table (alone boolean, fingerprint bytea, body text, location text)
    language plpgsql volatile
as $$
begin
    alone := pg_try_advisory_xact_lock(
        hashtextextended(concat_ws(e'\x1f', tenant, of_subject, of_client, of_operation, of_key), 0));
    if not alone then
        return next;
        return;
    end if;
    return query
    select true, k.fingerprint, k.body, k.location
    from (select 1) as always
    left join earlier_answer(tenant, of_subject, of_client, of_operation, of_key, at_time) k on true;
end
$$;

-- The same as earlier_answer for a request that is not in a transaction yet.
create function read_earlier_answer(
    tenant uuid, of_subject text, of_client text, of_operation text, of_key text, at_time timestamptz)
    returns setof idempotency_keys
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    return query select * from earlier_answer(tenant, of_subject, of_client, of_operation, of_key, at_time);
end
$$;

-- Everything that placing an order needs to know: the catalogue's entries, whether the customer is one,
-- and what was answered to the same key before.
create function read_order_inputs(
    tenant uuid, wanted_skus text[], wanted_customer uuid,
    of_subject text, of_client text, of_operation text, of_key text, at_time timestamptz)
    returns table (catalogue jsonb, customer_known boolean, fingerprint bytea, body text, location text)
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    return query
    select (select coalesce(jsonb_agg(jsonb_build_object(
                       'sku', p.sku, 'name', p.name, 'price_amount', p.price_amount,
                       'price_currency', p.price_currency)), '[]')
            from products p where p.tenant_id = tenant and p.sku = any (wanted_skus)),
           exists (select from customers c
                   where c.tenant_id = tenant and c.id = wanted_customer and c.erased_at is null),
           k.fingerprint, k.body, k.location
    from (select 1) as always
    left join earlier_answer(tenant, of_subject, of_client, of_operation, of_key, at_time) k on true;
end
$$;

revoke all on all functions in schema public from public;
grant execute on function current_tenant(), enter_tenant(uuid) to app_writer, app_reader, app_auditor;
grant execute on function
    read_order(uuid, uuid), read_invoice(uuid, uuid), read_product(uuid, text), read_customer(uuid, uuid)
    to app_reader;
grant execute on function
    earlier_answer(uuid, text, text, text, text, timestamptz),
    claim_key(uuid, text, text, text, text, timestamptz),
    read_earlier_answer(uuid, text, text, text, text, timestamptz),
    read_order_inputs(uuid, text[], uuid, text, text, text, text, timestamptz)
    to app_writer;
grant select on order_documents, invoice_documents to app_writer, app_reader;
