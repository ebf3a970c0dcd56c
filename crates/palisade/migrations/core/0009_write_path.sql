-- Cheaper changes: the same guarantees as before, with less work in each transaction (controls
-- INPUT-10, LOG-05).
set local lock_timeout = '5s';

-- A field of an audit event, as its digest has it. A function of one expression becomes part of the
-- statement that calls it, so neither of these two costs a call.
create function palisade.digest_field(field text) returns text
    language sql stable
    return octet_length(convert_to(field, 'UTF8')) || ':' || field;
create or replace function palisade.audit_digest(e palisade.audit_events) returns bytea
    language sql stable
    return sha256(convert_to(
        palisade.digest_field((e).tenant_id::text) || palisade.digest_field((e).id::text)
        || palisade.digest_field((extract(epoch from (e).at) * 1000000)::bigint::text)
        || palisade.digest_field((e).subject) || palisade.digest_field((e).client)
        || palisade.digest_field((e).action) || palisade.digest_field((e).object)
        || palisade.digest_field((e).trace_id) || palisade.digest_field((e).reason)
        || coalesce(palisade.digest_field((e).changes::text), ''), 'UTF8'));

-- Records the change of a request, at the time of its transaction, with the changed rows that no
-- event has taken yet. With own_changes_only it takes those of its object only. It takes ten rows at
-- most; the others get events of their own.
create or replace function palisade.record_audit_event(
    tenant uuid, event uuid, by_subject text, by_client text, action text, object text, trace_id text,
    own_changes_only boolean default false) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    e palisade.audit_events;
    changes jsonb;
begin
    if by_subject ilike 'operator:%' or by_client = '' or tenant = '00000000-0000-0000-0000-000000000000'
       or action in ('row_changed', 'audit_pruned', 'audit_restored') then
        raise exception 'a request cannot record an act of an operator' using errcode = 'insufficient_privilege';
    end if;
    if current_setting('palisade.has_changes', true) = 'on' then
        with taken as (
            delete from palisade.audit_pending
            where ctid = any (array(
                select p.ctid from palisade.audit_pending p
                where p.transaction = pg_current_xact_id() and p.of_tenant = tenant
                  and (p.key = record_audit_event.object or not own_changes_only) limit 10))
            returning audit_pending.changes)
        select jsonb_agg(c.change) into changes from taken, jsonb_array_elements(taken.changes) as c (change);
    end if;
    e := row (tenant, event, now(), by_subject, by_client, action, object, trace_id, '', changes);
    insert into palisade.audit_events values (e.*);
    insert into palisade.audit_journal (of_tenant, event, digest, is_left_over)
    values (tenant, event, palisade.audit_digest(e), false);
end
$$;

-- At the commit: an event for each changed row that no event has taken.
create or replace function palisade.journal_changes() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    pending palisade.audit_pending;
begin
    -- A loop costs more than this look.
    if not exists (select from palisade.audit_pending p where p.transaction = pg_current_xact_id()) then
        return null;
    end if;
    for pending in
        with left_over as (
            delete from palisade.audit_pending p where p.transaction = pg_current_xact_id() returning p.*)
        select l.* from left_over l where not l.is_resealed
    loop
        perform palisade.record_act(
            pending.of_tenant, 'row_changed', coalesce(nullif(pending.key, ''), pending.changes -> 0 ->> 'table'), '',
            pending.changes);
    end loop;
    return null;
end
$$;

-- The row of this key, if there is one that has not expired. Deletes an expired one, whose key is
-- free again; palisade.sweep deletes the others.
create or replace function palisade.stored_response(
    tenant uuid, for_subject text, for_client text, for_operation text, wanted_key text, at_time timestamptz)
    returns setof palisade.idempotency_keys
    language plpgsql volatile strict
as $$
declare
    stored palisade.idempotency_keys;
begin
    select * into stored from palisade.idempotency_keys k
    where k.tenant_id = tenant and k.subject = for_subject and k.client = for_client
      and k.operation = for_operation and k.key = wanted_key;
    if stored.expires_at > at_time then
        return next stored;
    elsif found then
        delete from palisade.idempotency_keys k
        where k.tenant_id = tenant and k.subject = for_subject and k.client = for_client
          and k.operation = for_operation and k.key = wanted_key and k.expires_at <= at_time;
    end if;
end
$$;

-- The same for a transaction of several statements, which also claims the key until it ends;
-- claimed is false if another transaction has it.
--
-- The lock is an advisory one, which is tried and never awaited: the second request gets 409 at
-- once. With the primary key alone it would wait for the first one, and hold a connection
-- meanwhile. First the lock, then the look-up: a statement of its own sees what was committed
-- before it.
create or replace function palisade.claim_key(
    tenant uuid, for_subject text, for_client text, for_operation text, wanted_key text, at_time timestamptz)
    returns table (claimed boolean, fingerprint bytea, status smallint, body text, location text)
    language plpgsql volatile
as $$
begin
    claimed := pg_try_advisory_xact_lock(
        hashtextextended(concat_ws(e'\x1f', tenant, for_subject, for_client, for_operation, wanted_key), 0));
    if claimed then
        select k.fingerprint, k.status, k.body, k.location into fingerprint, status, body, location
        from palisade.stored_response(tenant, for_subject, for_client, for_operation, wanted_key, at_time) k;
    end if;
    return next;
end
$$;

-- Records the change of a request: the stored response if it has an idempotency key, the row key of
-- a created row with sealed columns, the events of further changed objects, and its own event, which
-- takes the other changed rows. It has the rights of its caller.
create function palisade.record_change(tenant uuid, record jsonb) returns void
    language plpgsql volatile
as $$
begin
    if record ->> 'key' is not null then
        insert into palisade.idempotency_keys
            (tenant_id, subject, client, operation, key, fingerprint, status, body, location, created_at, expires_at)
        values (tenant, record ->> 'key_subject', record ->> 'key_client', record ->> 'operation', record ->> 'key',
                decode(record ->> 'fingerprint', 'hex'), (record ->> 'status')::smallint, record ->> 'body',
                record ->> 'location', (record ->> 'at')::timestamptz, (record ->> 'expires_at')::timestamptz);
    end if;
    if record ->> 'sealed_table' is not null then
        insert into palisade.row_keys (tenant_id, sealed_table, row_id, data_key, wrapped, index_key)
        values (tenant, record ->> 'sealed_table', (record ->> 'row_id')::uuid, (record ->> 'data_key')::integer,
                decode(record ->> 'wrapped', 'hex'), (record ->> 'index_key')::integer);
    end if;
    if record -> 'further' is not null then
        perform palisade.record_audit_event(
            tenant, (e ->> 'id')::uuid, record ->> 'subject', record ->> 'client', e ->> 'action', e ->> 'object',
            record ->> 'trace_id', true)
        from jsonb_array_elements(record -> 'further') e;
    end if;
    perform palisade.record_audit_event(
        tenant, (record ->> 'event')::uuid, record ->> 'subject', record ->> 'client', record ->> 'action',
        record ->> 'object', record ->> 'trace_id');
end
$$;

revoke all on function palisade.digest_field(text), palisade.record_change(uuid, jsonb) from public;
grant execute on function palisade.record_change(uuid, jsonb) to app_writer;
