-- The registry of tenants: which exist, which may call, and how a tenant leaves (controls AUTHN-04,
-- AUTHN-11, CRYPTO-08). docs/tenants.md explains the states.
--
-- Every replica keeps the registry in memory and reads what changed, as it reads revocations. Each
-- act is in the audit trail of the tenant.
set local lock_timeout = '5s';

alter table palisade.tenants
    add column name text check (length(name) between 1 and 200),
    add column state text not null default 'active' check (state in ('active', 'suspended', 'deleting', 'deleted')),
    -- Quotas in calls per minute by their names, such as {"tenant": 5000}.
    add column limits jsonb not null default '{}' check (jsonb_typeof(limits) = 'object'),
    add column created_at timestamptz not null default now(),
    add column suspended_at timestamptz,
    add column deleted_at timestamptz,
    -- The last transaction that changed the row; see palisade.revocations.
    add column changed_in xid8 not null default pg_current_xact_id();
create index tenants_by_change on palisade.tenants (changed_in);

-- The names of tenants in tokens of issuers that do not send the UUID.
create table palisade.tenant_ids (
    issuer text not null check (length(issuer) between 1 and 500),
    external_id text not null check (length(external_id) between 1 and 255),
    of_tenant uuid not null references palisade.tenants,
    primary key (issuer, external_id)
);
create index tenant_ids_by_tenant on palisade.tenant_ids (of_tenant);

-- Tenants from before this migration: those with a row in any table, each found by one step of the
-- primary key, which begins with the tenant. The owner sees all rows until the end of its block.
do $$
declare
    tenant_table regclass;
begin
    insert into palisade.tenants (of_tenant) select distinct of_tenant from palisade.data_keys on conflict do nothing;
    for tenant_table in
        select c.oid from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
        where c.relnamespace in ('palisade'::regnamespace, 'public'::regnamespace) and c.relkind in ('r', 'p')
    loop
        execute format('alter table %s no force row level security', tenant_table);
        execute format(
            'with recursive found (tenant) as (
                 (select tenant_id from %1$s order by tenant_id limit 1)
                 union all
                 select (select t.tenant_id from %1$s t where t.tenant_id > f.tenant order by t.tenant_id limit 1)
                 from found f where f.tenant is not null)
             insert into palisade.tenants (of_tenant)
             select tenant from found where tenant <> ''00000000-0000-0000-0000-000000000000''
             on conflict do nothing', tenant_table);
        execute format('alter table %s force row level security', tenant_table);
    end loop;
end
$$;

-- Rows that outlive their tenant, and why. Of a table that is not here, all are deleted.
create table palisade.retained_rows (
    table_name text primary key,
    reason text not null check (length(reason) between 1 and 200),
    -- SQL on the row `r`. Null: all rows.
    condition text,
    -- Columns that become null in a retained row.
    cleared text[] not null
);

-- Declares rows that outlive their tenant. For migrations of the service.
create function palisade.retain_rows(
    retained regclass, new_reason text, new_condition text default null, new_cleared text[] default '{}') returns void
    language sql volatile set search_path = pg_catalog, pg_temp
as $$
    insert into palisade.retained_rows (table_name, reason, condition, cleared)
    select format('%I.%I', c.relnamespace::regnamespace, c.relname), new_reason, new_condition, new_cleared
    from pg_class c where c.oid = retained
$$;
select palisade.retain_rows('palisade.audit_events', 'audit trail');

-- The tables with rows of tenants, in the order in which their rows can be deleted: a table before
-- those that it refers to, and row keys last. `kept` is the condition of rows that stay.
create function palisade.tenant_tables()
    returns table (name text, kept text, reason text, cleared text[], refers_to_itself boolean)
    language sql stable set search_path = pg_catalog, pg_temp
as $$
    with recursive tables as (
        select c.oid, format('%I.%I', c.relnamespace::regnamespace, c.relname) as name
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
        where c.relnamespace in ('palisade'::regnamespace, 'public'::regnamespace) and c.relkind in ('r', 'p')
          and not c.relispartition
    ), depths (oid, depth) as (
        select t.oid, 0 from tables t
        union
        select f.confrelid, d.depth + 1
        from depths d join pg_constraint f on f.conrelid = d.oid and f.contype = 'f' and f.confrelid <> f.conrelid
        where d.depth < 100
    )
    select t.name, case when r.table_name is null then 'false' else coalesce(r.condition, 'true') end, r.reason,
           coalesce(r.cleared, '{}'),
           exists (select from pg_constraint f
                   where f.conrelid = t.oid and f.confrelid = t.oid and f.contype = 'f')
    from tables t
    left join palisade.retained_rows r on r.table_name = t.name
    order by t.name = 'palisade.row_keys', (select max(d.depth) from depths d where d.oid = t.oid), t.name
$$;

-- Replaces names and limits that are not null.
create function palisade.change_tenant(tenant uuid, new_name text, new_limits jsonb, new_ids jsonb) returns boolean
    language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    update palisade.tenants t
    set name = coalesce(new_name, t.name), limits = coalesce(new_limits, t.limits), changed_in = pg_current_xact_id()
    where t.of_tenant = tenant and t.state in ('active', 'suspended');
    if not found then
        return false;
    end if;
    if new_ids is not null then
        delete from palisade.tenant_ids i where i.of_tenant = tenant;
        insert into palisade.tenant_ids (issuer, external_id, of_tenant)
        select i ->> 0, i ->> 1, tenant from jsonb_array_elements(new_ids) i;
    end if;
    return true;
end
$$;

-- Registers a tenant. Returns false if it is registered already, deleted or not.
create function palisade.create_tenant(
    tenant uuid, new_name text, new_limits jsonb, new_ids jsonb, new_reason text) returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if tenant = '00000000-0000-0000-0000-000000000000' then
        raise exception 'the nil UUID stands for all tenants' using errcode = 'check_violation';
    end if;
    insert into palisade.tenants (of_tenant) values (tenant) on conflict do nothing;
    if not found then
        return false;
    end if;
    perform palisade.change_tenant(tenant, new_name, new_limits, new_ids);
    perform palisade.record_operator_act(tenant, 'tenant_created', tenant::text, new_reason);
    return true;
end
$$;

-- Changes what is not null. Returns false for a tenant that is unknown or was deleted.
create function palisade.update_tenant(
    tenant uuid, new_name text, new_limits jsonb, new_ids jsonb, new_reason text) returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not palisade.change_tenant(tenant, new_name, new_limits, new_ids) then
        return false;
    end if;
    perform palisade.record_operator_act(tenant, 'tenant_updated', tenant::text, new_reason);
    return true;
end
$$;

-- The state of a tenant. Registers an unknown one, for the first token of an issuer that may create
-- tenants.
create function palisade.admit_tenant(tenant uuid, token_issuer text) returns text
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform palisade.create_tenant(tenant, null, null, null, left('first token of ' || token_issuer, 500));
    return (select t.state from palisade.tenants t where t.of_tenant = tenant);
end
$$;

-- Suspends an active tenant, or resumes a suspended one. Returns false for any other state.
create function palisade.set_tenant_state(tenant uuid, new_state text, new_reason text) returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    update palisade.tenants t
    set state = new_state, suspended_at = case new_state when 'suspended' then now() end,
        changed_in = pg_current_xact_id()
    where t.of_tenant = tenant and (t.state, new_state) in (('active', 'suspended'), ('suspended', 'active'));
    if not found then
        return false;
    end if;
    perform palisade.record_operator_act(
        tenant, case new_state when 'active' then 'tenant_resumed' else 'tenant_suspended' end, tenant::text, new_reason);
    return true;
end
$$;

-- The next tenants after this one.
create function palisade.list_tenants(after_tenant uuid, page_size integer)
    returns table (of_tenant uuid, name text, state text, limits jsonb, external_ids jsonb, created_at timestamptz,
                   suspended_at timestamptz, deleted_at timestamptz)
    language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select t.of_tenant, t.name, t.state, t.limits,
           (select coalesce(jsonb_agg(jsonb_build_array(i.issuer, i.external_id) order by i.issuer, i.external_id), '[]')
            from palisade.tenant_ids i where i.of_tenant = t.of_tenant),
           t.created_at, t.suspended_at, t.deleted_at
    from palisade.tenants t where t.of_tenant > after_tenant order by t.of_tenant limit least(page_size, 1000)
$$;

-- What a deletion of the tenant deletes and keeps: the rows of each table, and why they stay.
create function palisade.describe_deletion(tenant uuid) returns table (name text, number bigint, kept_for text)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    t record;
begin
    perform set_config('app.tenant_id', tenant::text, true);
    for t in select * from palisade.tenant_tables() loop
        return query execute format(
            'select %1$L::text, count(*), case when f.is_kept then %2$L::text end
             from (select (%3$s) is true as is_kept from %1$s r where r.tenant_id = $1) f
             group by f.is_kept', t.name, t.reason, t.kept) using tenant;
    end loop;
    return query
    select 'palisade.data_keys', count(*), null from palisade.data_keys k
    where k.of_tenant = tenant and k.wrapped is not null having count(*) > 0;
    perform set_config('app.tenant_id', '', true);
end
$$;

-- Begins the deletion of a tenant, or continues one: destroys its data keys, which is final. Returns
-- their number; null for an unknown tenant.
--
-- Every replica refuses a suspended tenant after two seconds, and ends what it had begun. After a
-- minute, no request adds a row to a table whose rows are gone already. The login of the internal
-- listener waits a day: an attacker who takes over a replica has it.
create function palisade.begin_deletion(tenant uuid, new_reason text) returns bigint
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    found_tenant palisade.tenants;
    destroyed bigint;
    wait interval := case when pg_has_role(session_user, 'app_incidents', 'member') then '1 day' else '1 minute' end;
begin
    select * into found_tenant from palisade.tenants t where t.of_tenant = tenant for update;
    if found_tenant is null then
        return null;
    end if;
    if found_tenant.state in ('active', 'deleted')
       or found_tenant.state = 'suspended' and found_tenant.suspended_at > now() - wait then
        raise exception 'the tenant was not suspended for long enough' using errcode = 'check_violation',
            constraint = 'tenant_not_suspended';
    end if;
    update palisade.data_keys k set wrapped = null, destroyed_at = now()
    where k.of_tenant = tenant and k.wrapped is not null;
    get diagnostics destroyed = row_count;
    if found_tenant.state = 'suspended' then
        update palisade.tenants t set state = 'deleting', changed_in = pg_current_xact_id() where t.of_tenant = tenant;
        perform palisade.record_operator_act(
            tenant, 'tenant_deletion_begun', destroyed || ' data keys destroyed', new_reason);
    end if;
    return destroyed;
end
$$;

-- Deletes the next rows of a tenant whose deletion has begun, of one table; first clears columns of
-- rows that stay. Returns table and number; nothing if none is left.
--
-- One audit event has the number: events of the rows would be as many as the rows.
create function palisade.delete_tenant_rows(tenant uuid, batch_size integer)
    returns table (name text, number bigint, is_cleared boolean)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    t record;
begin
    if not exists (select from palisade.tenants d where d.of_tenant = tenant and d.state = 'deleting') then
        raise exception 'the deletion of this tenant has not begun';
    end if;
    perform set_config('app.tenant_id', tenant::text, true);
    for t in
        select o.name, o.kept, (select string_agg(format('r.%I', c), ', ') from unnest(o.cleared) c) as columns,
               (select string_agg(format('%I = null', c), ', ') from unnest(o.cleared) c) as assignments
        from palisade.tenant_tables() o where cardinality(o.cleared) > 0
    loop
        name := t.name;
        execute format(
            'update %1$s set %2$s where tenant_id = $1 and ctid = any (array(
                 select r.ctid from %1$s r where r.tenant_id = $1 and num_nonnulls(%3$s) > 0 and (%4$s) limit $2))',
            name, t.assignments, t.columns, t.kept) using tenant, batch_size;
        get diagnostics number = row_count;
        is_cleared := true;
        exit when number > 0;
    end loop;
    if coalesce(number, 0) = 0 then
        for t in select * from palisade.tenant_tables() o where o.kept <> 'true' loop
            name := t.name;
            execute format(
                'delete from %1$s where tenant_id = $1 and ctid = any (array(
                     select r.ctid from %1$s r where r.tenant_id = $1 and (%2$s) is not true limit $2))',
                name, t.kept) using tenant, case when not t.refers_to_itself then batch_size end;
            get diagnostics number = row_count;
            is_cleared := false;
            exit when number > 0;
        end loop;
    end if;
    if coalesce(number, 0) = 0 then
        return;
    end if;
    delete from palisade.audit_pending p where p.transaction = pg_current_xact_id() and p.of_tenant = tenant;
    perform palisade.record_operator_act(
        tenant, case when is_cleared then 'tenant_rows_cleared' else 'tenant_rows_deleted' end,
        number || ' rows of ' || name, '');
    return next;
end
$$;

-- Ends the deletion: the entry of the registry stays without a name, so that no issuer creates the
-- tenant again. The destroyed data keys stay without key material: a restore of an earlier backup
-- destroys them again.
create function palisade.finish_deletion(tenant uuid) returns void
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from palisade.delete_tenant_rows(tenant, 1)) then
        raise exception 'rows of this tenant are left';
    end if;
    delete from palisade.tenant_ids i where i.of_tenant = tenant;
    delete from palisade.tenant_quotas q where q.of_tenant = tenant;
    delete from palisade.revocations r where r.kind = 'tenant' and r.value = tenant::text;
    update palisade.tenants t
    set state = 'deleted', name = null, limits = '{}', deleted_at = now(), changed_in = pg_current_xact_id()
    where t.of_tenant = tenant;
    perform palisade.record_operator_act(tenant, 'tenant_deleted', tenant::text, '');
end
$$;

revoke all on function
    palisade.retain_rows(regclass, text, text, text[]), palisade.tenant_tables(),
    palisade.change_tenant(uuid, text, jsonb, jsonb), palisade.create_tenant(uuid, text, jsonb, jsonb, text),
    palisade.update_tenant(uuid, text, jsonb, jsonb, text), palisade.admit_tenant(uuid, text),
    palisade.set_tenant_state(uuid, text, text), palisade.list_tenants(uuid, integer),
    palisade.describe_deletion(uuid), palisade.begin_deletion(uuid, text),
    palisade.delete_tenant_rows(uuid, integer), palisade.finish_deletion(uuid)
    from public;
grant execute on function
    palisade.create_tenant(uuid, text, jsonb, jsonb, text), palisade.update_tenant(uuid, text, jsonb, jsonb, text),
    palisade.set_tenant_state(uuid, text, text), palisade.list_tenants(uuid, integer),
    palisade.describe_deletion(uuid), palisade.begin_deletion(uuid, text),
    palisade.delete_tenant_rows(uuid, integer), palisade.finish_deletion(uuid)
    to app_operator, app_incidents;
grant execute on function palisade.admit_tenant(uuid, text) to app_authn;
grant select on palisade.tenants, palisade.tenant_ids to app_authn;
