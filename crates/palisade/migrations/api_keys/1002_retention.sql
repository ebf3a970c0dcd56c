-- Retention of API keys and of the roles of subjects (control AUTHN-12). `palisade.sweep` calls the
-- function for each tenant.
set local lock_timeout = '5s';

create trigger register_tenant after insert on palisade.subject_roles
    for each row execute function palisade.register_tenant();

-- Tenants from before this migration. The owner sees the rows of all tenants until its end.
alter table palisade.subject_roles no force row level security;
insert into palisade.tenants (of_tenant)
select distinct tenant_id from palisade.subject_roles on conflict do nothing;
alter table palisade.subject_roles force row level security;

create index api_keys_by_end on palisade.api_keys (tenant_id, (least(expires_at, revoked_at)));

-- Deletes API keys of a tenant that ended more than 366 days ago, as long as a revocation is kept,
-- and the roles of subjects without API keys that are older than any token. At most 1,000 of each.
-- Returns the larger number.
create function palisade.sweep_api_keys(tenant uuid) returns bigint
    language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    ended uuid[];
    creators text[];
    deleted bigint;
begin
    ended := array(
        select k.id from palisade.api_keys k
        where k.tenant_id = tenant and least(k.expires_at, k.revoked_at) < now() - interval '366 days'
        order by least(k.expires_at, k.revoked_at) limit 1000 for update skip locked);
    if cardinality(ended) > 0 then
        update palisade.api_keys k set replaces = null where k.tenant_id = tenant and k.replaces = any (ended);
        with gone as (delete from palisade.api_keys k where k.tenant_id = tenant and k.id = any (ended)
                      returning k.created_by)
        select array_agg(distinct created_by) into creators from gone;
        -- A creation of a key changes this row first. So the next statement sees every key.
        perform from palisade.subject_roles s
        where s.tenant_id = tenant and s.subject = any (creators) order by s.subject for no key update;
        update palisade.subject_roles s set has_api_keys = false
        where s.tenant_id = tenant and s.subject = any (creators)
          and not exists (select from palisade.api_keys k where k.tenant_id = tenant and k.created_by = s.subject);
    end if;
    delete from palisade.subject_roles s
    where s.tenant_id = tenant and s.subject = any (array(
        select e.subject from palisade.subject_roles e
        where e.tenant_id = tenant and e.as_of < now() - interval '3 days' and not e.has_api_keys
        order by e.as_of limit 1000 for update skip locked));
    get diagnostics deleted = row_count;
    return greatest(cardinality(ended), deleted);
end
$$;
revoke all on function palisade.sweep_api_keys(uuid) from public;
