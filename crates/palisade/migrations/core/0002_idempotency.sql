-- Responses to requests with an idempotency key (control INPUT-10). A row is written in the
-- transaction of the change that it is the response for, so there is never one without the other.
set local lock_timeout = '5s';

create table palisade.idempotency_keys (
    tenant_id uuid not null,
    subject text not null check (length(subject) between 1 and 255),
    client text not null check (length(client) between 1 and 255),
    operation text not null,
    key text not null check (length(key) between 1 and 255),
    -- Keyed digest of the request: operation, object and body.
    fingerprint bytea not null check (length(fingerprint) = 32),
    -- The response: a 201 with this body and Location. Null once its personal data was erased.
    body text,
    location text,
    created_at timestamptz not null,
    expires_at timestamptz not null check (expires_at > created_at),
    primary key (tenant_id, subject, client, operation, key)
);
create index idempotency_keys_by_expiry on palisade.idempotency_keys (tenant_id, expires_at);
select palisade.isolate_tenants('palisade.idempotency_keys');

-- A stored response is emptied or deleted, and never replaced by another one.
create function palisade.reject_new_response() returns trigger
    language plpgsql
as $$
begin
    if new.body is not null or new.location is not null then
        raise exception 'a stored response can only be emptied' using errcode = 'check_violation';
    end if;
    return new;
end
$$;
create trigger reject_new_response before update on palisade.idempotency_keys
    for each row execute function palisade.reject_new_response();

-- The row of this key, if there is one that has not expired. Also deletes expired rows of the
-- tenant: this one, and a few others.
create function palisade.stored_response(
    tenant uuid, for_subject text, for_client text, for_operation text, wanted_key text, at_time timestamptz)
    returns setof palisade.idempotency_keys
    language plpgsql volatile strict
as $$
begin
    delete from palisade.idempotency_keys k
    where k.tenant_id = tenant and k.subject = for_subject and k.client = for_client
      and k.operation = for_operation and k.key = wanted_key and k.expires_at <= at_time;
    delete from palisade.idempotency_keys k
    where k.tenant_id = tenant and k.ctid = any (array(
        select e.ctid from palisade.idempotency_keys e
        where e.tenant_id = tenant and e.expires_at <= at_time
        order by e.expires_at limit 20 for update skip locked));
    return query
    select * from palisade.idempotency_keys k
    where k.tenant_id = tenant and k.subject = for_subject and k.client = for_client
      and k.operation = for_operation and k.key = wanted_key;
end
$$;

-- The same for a transaction of several statements, which also claims the key until it ends;
-- claimed is false if another transaction has it.
--
-- The lock is an advisory one, which is tried and never awaited: the second request gets 409 at
-- once. With the primary key alone it would wait for the first one, and hold a connection
-- meanwhile. First the lock, then the look-up: a statement of its own sees what was committed
-- before it.
create function palisade.claim_key(
    tenant uuid, for_subject text, for_client text, for_operation text, wanted_key text, at_time timestamptz)
    returns table (claimed boolean, fingerprint bytea, body text, location text)
    language plpgsql volatile
as $$
begin
    claimed := pg_try_advisory_xact_lock(
        hashtextextended(concat_ws(e'\x1f', tenant, for_subject, for_client, for_operation, wanted_key), 0));
    if not claimed then
        return next;
        return;
    end if;
    return query
    select true, k.fingerprint, k.body, k.location
    from (select 1) as always
    left join palisade.stored_response(tenant, for_subject, for_client, for_operation, wanted_key, at_time) k on true;
end
$$;

-- The same as stored_response, as a statement of its own. It locks nothing: of two concurrent
-- creations in one statement each, the primary key lets one commit.
create function palisade.read_stored_response(
    tenant uuid, for_subject text, for_client text, for_operation text, wanted_key text, at_time timestamptz)
    returns setof palisade.idempotency_keys
    language plpgsql volatile
as $$
begin
    perform palisade.enter_tenant(tenant);
    return query
    select * from palisade.stored_response(tenant, for_subject, for_client, for_operation, wanted_key, at_time);
end
$$;

revoke all on all functions in schema palisade from public;
grant execute on function
    palisade.stored_response(uuid, text, text, text, text, timestamptz),
    palisade.claim_key(uuid, text, text, text, text, timestamptz),
    palisade.read_stored_response(uuid, text, text, text, text, timestamptz)
    to app_writer;
grant select, insert, delete, update (body, location) on palisade.idempotency_keys to app_writer;
