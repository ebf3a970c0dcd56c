-- The schema of the kernel, and the tenant of a transaction (control AUTHZ-07).
--
-- A table with a column tenant_id begins its key with it, refers to rows of the same tenant only,
-- and has row-level security that holds for its owner too. Registers of all tenants name a tenant
-- of_tenant instead: no operation of the API reads them.
set local lock_timeout = '5s';

grant usage on schema palisade
    to app_writer, app_reader, app_authn, app_keys, app_operator, app_incidents, app_auditor;
-- At startup, each login of the service compares the applied migrations with those of the binary.
grant select on palisade._sqlx_migrations to app_writer, app_reader, app_authn, app_keys, app_incidents;

-- The tenant of the current transaction, null if none was set. After a transaction the setting is
-- '' and not null, hence the nullif.
create function palisade.current_tenant() returns uuid
    language sql stable parallel safe
    return nullif(current_setting('app.tenant_id', true), '')::uuid;

-- Sets the tenant of the current transaction, and returns it. Refuses to change one that is set.
--
-- The functions read_… begin with it. The service sends each of them as a statement of its own,
-- outside of a transaction block. So the statement is the transaction, the tenant ends with it, and
-- no connection carries a tenant into another request. PL/pgSQL runs its statements in order, which
-- no planner changes. All of it has the rights of the caller, under row-level security.
create function palisade.enter_tenant(tenant uuid) returns uuid
    language plpgsql volatile
as $$
begin
    if palisade.current_tenant() is not null then
        raise exception 'the transaction has a tenant already';
    end if;
    perform set_config('app.tenant_id', tenant::text, true);
    return tenant;
end
$$;

-- Confines every login, the owner too, to the rows of the current tenant in each of these tables.
create function palisade.isolate_tenants(variadic tables regclass[]) returns void
    language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    isolated regclass;
begin
    foreach isolated in array tables loop
        execute format('alter table %s enable row level security', isolated);
        execute format('alter table %s force row level security', isolated);
        execute format('create policy tenant_isolation on %s using (tenant_id = palisade.current_tenant()) '
                       'with check (tenant_id = palisade.current_tenant())', isolated);
    end loop;
end
$$;

revoke all on all functions in schema palisade from public;
grant execute on function palisade.current_tenant(), palisade.enter_tenant(uuid)
    to app_writer, app_reader, app_authn, app_auditor;
