-- Retention and erasure (controls INPUT-10, CRYPTO-08): deletes what has expired, of tenants that
-- send no more requests too, and what a destroyed tenant leaves behind.
set local lock_timeout = '5s';

-- Tenants that may have rows that expire. Row-level security holds for the owner too, so a sweep
-- takes one tenant after the other.
create table palisade.tenants (
    of_tenant uuid primary key
);

create function palisade.register_tenant() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    -- The first look takes no lock.
    if not exists (select from palisade.tenants t where t.of_tenant = new.tenant_id) then
        insert into palisade.tenants (of_tenant) values (new.tenant_id) on conflict do nothing;
    end if;
    return null;
end
$$;
create trigger register_tenant after insert on palisade.idempotency_keys
    for each row execute function palisade.register_tenant();

-- Tenants from before this migration. The owner sees the rows of all tenants until its end.
alter table palisade.idempotency_keys no force row level security;
insert into palisade.tenants (of_tenant) select distinct tenant_id from palisade.idempotency_keys;
alter table palisade.idempotency_keys force row level security;

-- The erasure of an object empties the stored responses with its location.
create index idempotency_keys_by_location on palisade.idempotency_keys (tenant_id, location)
    where body is not null;

-- Commands read the data keys of a master key in pages.
drop index palisade.data_keys_by_master;
create index data_keys_by_master on palisade.data_keys (wrapped_by, of_tenant, version) where wrapped is not null;

-- Deletes the expired rows of the next tenants after this one, up to 100 tenants, or up to the
-- first with 1,000 expired rows of a table. Returns the last tenant that is done; null at the end.
create function palisade.sweep(after_tenant uuid) returns uuid
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- The migrations of the feature `api_keys` create it.
    has_api_keys boolean := to_regprocedure('palisade.sweep_api_keys(uuid)') is not null;
    swept uuid := after_tenant;
    number integer := 0;
    deleted bigint;
    deleted_keys bigint := 0;
    tenant uuid;
begin
    for tenant in
        select t.of_tenant from palisade.tenants t where t.of_tenant > after_tenant order by t.of_tenant limit 100
    loop
        perform set_config('app.tenant_id', tenant::text, true);
        delete from palisade.idempotency_keys k
        where k.tenant_id = tenant and k.ctid = any (array(
            select e.ctid from palisade.idempotency_keys e
            where e.tenant_id = tenant and e.expires_at <= now()
            order by e.expires_at limit 1000 for update skip locked));
        get diagnostics deleted = row_count;
        if has_api_keys then
            execute 'select palisade.sweep_api_keys($1)' into deleted_keys using tenant;
        end if;
        if greatest(deleted, deleted_keys) >= 1000 then
            return swept;
        end if;
        swept := tenant;
        number := number + 1;
    end loop;
    return case when number = 100 then swept end;
end
$$;

-- Deletes the next 1,000 stored responses of a tenant with destroyed data keys: they hold names.
-- Returns their number.
create function palisade.delete_stored_responses(tenant uuid) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    deleted bigint;
begin
    if not exists (select from palisade.data_keys k where k.of_tenant = tenant)
       or exists (select from palisade.data_keys k where k.of_tenant = tenant and k.wrapped is not null) then
        raise exception 'the data keys of this tenant are not destroyed';
    end if;
    perform set_config('app.tenant_id', tenant::text, true);
    delete from palisade.idempotency_keys k
    where k.tenant_id = tenant and k.ctid = any (array(
        select e.ctid from palisade.idempotency_keys e where e.tenant_id = tenant limit 1000));
    get diagnostics deleted = row_count;
    return deleted;
end
$$;

-- What `keys destroy` would destroy: rows with sealed fields by table, stored responses, and the
-- time of the last audit event. Nothing for a tenant that never had a data key.
create function palisade.describe_tenant(tenant uuid)
    returns table (name text, number bigint, last_use timestamptz)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from palisade.data_keys k where k.of_tenant = tenant) then
        return;
    end if;
    perform set_config('app.tenant_id', tenant::text, true);
    return query
    select 'data keys', count(*), null::timestamptz from palisade.data_keys k
    where k.of_tenant = tenant and k.wrapped is not null
    union all
    (select 'rows of ' || k.sealed_table, count(*), null from palisade.row_keys k
     where k.tenant_id = tenant group by k.sealed_table order by 1)
    union all
    select 'stored responses', count(*), null from palisade.idempotency_keys k where k.tenant_id = tenant
    union all
    select 'last change', null, max(e.at) from palisade.audit_events e where e.tenant_id = tenant;
end
$$;

revoke all on function
    palisade.register_tenant(), palisade.sweep(uuid), palisade.delete_stored_responses(uuid),
    palisade.describe_tenant(uuid)
    from public;
grant execute on function palisade.sweep(uuid) to app_writer;
grant execute on function palisade.delete_stored_responses(uuid), palisade.describe_tenant(uuid) to app_operator;
