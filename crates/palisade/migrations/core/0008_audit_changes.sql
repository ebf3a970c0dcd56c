-- The audit trail says what changed, can be pruned, and can declare a restore (control LOG-05).
--
-- A trigger on each table of the service collects changed rows. The event of the same transaction
-- takes them. A change that no event took gets an event of its own at the commit, in the name of
-- the login. So no login updates or deletes a row of the service and leaves no event, by whatever
-- statement; but a login that seals a row again as a rotation does, with its row key, leaves none.
set local lock_timeout = '5s';

-- What changed: an array of {table, key, column, before, after}, one element for each column.
-- before and after are there only for values that cannot be personal: see collect_change.
alter table palisade.audit_events add column changes jsonb;
alter table palisade.audit_events add constraint changes_are_bounded
    check (jsonb_array_length(changes) between 1 and 500) not valid;

-- By clock of the database. `audit prune` deletes whole seals by age; older seals count as made now.
alter table palisade.audit_seals add column sealed_at timestamptz not null default now();

-- A login of the service changed a row, and no event of a request took the change. Such lines are
-- counted at sealing, which reads no event.
alter table palisade.audit_journal add column is_left_over boolean not null default false;

-- Changed rows of running transactions that no event has taken yet. Empty for every other
-- transaction, so nothing is lost with a crash.
create unlogged table palisade.audit_pending (
    transaction xid8 not null default pg_current_xact_id(),
    of_tenant uuid not null,
    key text not null,
    changes jsonb not null,
    -- Ciphertexts and the row key were replaced, and nothing else changed: without an event, a
    -- rotation of keys.
    is_resealed boolean not null,
    -- No other change was pending, so the end of the transaction looks for changes once.
    is_first boolean not null
);
create index audit_pending_by_transaction on palisade.audit_pending (transaction);

-- An event without changes has the digest that it had before this migration. This function and the
-- next run in each change: they have the search path and the rights of their callers, the functions
-- below, because setting both for each call costs more than the work.
create or replace function palisade.audit_digest(e palisade.audit_events) returns bytea
    language sql stable
as $$
    select sha256(convert_to(
        string_agg(octet_length(convert_to(field, 'UTF8')) || ':' || field, '' order by no), 'UTF8'))
    from unnest(array[e.tenant_id::text, e.id::text, (extract(epoch from e.at) * 1000000)::bigint::text, e.subject,
                      e.client, e.action, e.object, e.trace_id, e.reason, e.changes::text])
         with ordinality as f (field, no)
    where field is not null
$$;
alter function palisade.audit_digest(palisade.audit_events) reset search_path;
create or replace function palisade.insert_audit_event(e palisade.audit_events) returns void
    language plpgsql
as $$
begin
    insert into palisade.audit_events values (e.*);
    insert into palisade.audit_journal (of_tenant, event, digest, is_left_over)
    values (e.tenant_id, e.id, palisade.audit_digest(e),
            e.action = 'row_changed' and not pg_has_role(session_user, current_user, 'member'));
end
$$;
alter function palisade.insert_audit_event(palisade.audit_events) security invoker reset search_path;

create function palisade.has_destroyed_keys(tenant uuid) returns boolean
    language sql stable
as $$
    select exists (select from palisade.data_keys k where k.of_tenant = tenant)
       and not exists (select from palisade.data_keys k where k.of_tenant = tenant and k.wrapped is not null)
$$;

-- Collects the changed columns of a row but updated_at, since the event has the time; of a deleted
-- row, all that had a value. The arguments are the columns of the primary key after tenant_id.
--
-- The trail outlives an erasure, so it has no personal data: old and new values are recorded of
-- columns of numbers and booleans, of UUIDs, of a word in a column `status`, and of currency codes.
-- Of every other column it has the name only. Of a primary key that is no code, number or UUID it has
-- a digest.
create function palisade.collect_change() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    was jsonb := to_jsonb(old);
    is_now jsonb := to_jsonb(new);
    row_key text := coalesce(was ->> tg_argv[0], '');
    c record;
    change jsonb;
    changes jsonb;
    is_shown boolean;
    is_resealed boolean := true;
begin
    if tg_nargs > 1 then
        select string_agg(was ->> name, '/' order by no) into row_key
        from unnest(tg_argv) with ordinality as k (name, no);
    end if;
    if row_key !~ '^(([A-Z0-9.-]{1,40}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})(/|$))*$' then
        row_key := 'sha256:' || left(encode(sha256(convert_to(row_key, 'UTF8')), 'hex'), 16);
    end if;
    row_key := left(row_key, 300);
    for c in
        select w.key as name, jsonb_typeof(w.value) as type, coalesce(jsonb_typeof(is_now -> w.key), 'null') as new_type,
               was ->> w.key as before, is_now ->> w.key as after,
               concat(was ->> w.key, is_now ->> w.key) as both_values
        from jsonb_each(was) as w
        where w.value <> coalesce(is_now -> w.key, 'null') and w.key <> 'updated_at' limit 50
    loop
        change := jsonb_build_object('table', tg_table_name, 'key', row_key, 'column', c.name);
        if c.type in ('number', 'boolean', 'null') and c.new_type in ('number', 'boolean', 'null') then
            -- By the type of the column: JSON may hold a number, and a text in the next row.
            select t.typcategory in ('N', 'B') into is_shown
            from pg_attribute a join pg_type t on t.oid = a.atttypid
            where a.attrelid = tg_relid and a.attname = c.name;
        else
            is_shown := c.name = 'status' and c.both_values ~ '^[A-Za-z_]{1,100}$'
           or c.name like '%currency' and c.both_values ~ '^([A-Z]{3}){1,2}$'
           or length(c.both_values) in (36, 72)
              and c.both_values ~ '^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}){1,2}$';
        end if;
        if is_shown then
            change := change || jsonb_strip_nulls(jsonb_build_object('before', c.before, 'after', c.after));
        end if;
        changes := coalesce(changes, '[]') || change;
        is_resealed := is_resealed and coalesce(starts_with(c.before, '\x'), false);
    end loop;
    if changes is null then
        return null;
    end if;
    -- A rotation replaces the row key too. If the data keys of a tenant are destroyed, its blind
    -- indexes are cleared.
    if is_resealed then
        is_resealed := not exists (
            select from pg_attribute a
            where a.attrelid = tg_relid and a.attname in (select e ->> 'column' from jsonb_array_elements(changes) e)
              and a.atttypid is distinct from to_regtype('palisade.blind_index')
              and (a.atttypid is distinct from to_regtype('palisade.sealed') or is_now ->> a.attname is null));
    end if;
    if is_resealed then
        is_resealed := palisade.has_destroyed_keys(old.tenant_id) or not exists (
                select from jsonb_array_elements(changes) e where is_now ->> (e ->> 'column') is null)
            and exists (
                select from palisade.row_keys k
                where k.tenant_id = old.tenant_id and k.sealed_table = tg_table_name
                  and k.row_id::text = was ->> 'id' and k.xmin = pg_current_xact_id()::xid);
    end if;
    insert into palisade.audit_pending (of_tenant, key, changes, is_resealed, is_first)
    values (old.tenant_id, row_key, changes, is_resealed,
            not exists (select from palisade.audit_pending p where p.transaction = pg_current_xact_id()));
    -- A hint that saves a search. Without it the changes get events of their own.
    perform set_config('palisade.has_changes', 'on', true);
    return null;
end
$$;

-- Attaches the trigger to a table of the service.
create function palisade.track_changes(tracked regclass) returns void
    language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    key_columns text;
begin
    select string_agg(quote_literal(a.attname), ', ' order by k.no) into key_columns
    from pg_index i
    cross join unnest(i.indkey::smallint[]) with ordinality as k (attnum, no)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = tracked and i.indisprimary and a.attname <> 'tenant_id';
    execute format('create trigger collect_change after update or delete on %s '
                   'for each row execute function palisade.collect_change(%s)', tracked, key_columns);
end
$$;

-- Tables of the service are tracked from their first day; the kernel's functions write events
-- themselves.
create or replace function palisade.isolate_tenants(variadic tables regclass[]) returns void
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
        if not exists (select from pg_class c where c.oid = isolated
                       and c.relnamespace = to_regnamespace('palisade')) then
            perform palisade.track_changes(isolated);
        end if;
    end loop;
end
$$;
select palisade.track_changes(c.oid)
from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
  and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id');

-- Records the change of a request, at the time of its transaction, with the changed rows that no
-- event has taken yet. With own_changes_only it takes those of its object only. It takes ten rows at
-- most; the others get events of their own.
drop function palisade.record_audit_event(uuid, uuid, text, text, text, text, text);
create function palisade.record_audit_event(
    tenant uuid, event uuid, by_subject text, by_client text, action text, object text, trace_id text,
    own_changes_only boolean default false) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    changes jsonb;
    taken jsonb;
begin
    if by_subject ilike 'operator:%' or by_client = '' or tenant = '00000000-0000-0000-0000-000000000000' then
        raise exception 'a request cannot record an act of an operator' using errcode = 'insufficient_privilege';
    end if;
    if current_setting('palisade.has_changes', true) = 'on' then
        for taken in
            delete from palisade.audit_pending
            where ctid = any (array(
                select p.ctid from palisade.audit_pending p
                where p.transaction = pg_current_xact_id() and p.of_tenant = tenant
                  and (p.key = record_audit_event.object or not own_changes_only) limit 10))
            returning audit_pending.changes
        loop
            changes := coalesce(changes, '[]') || taken;
        end loop;
    end if;
    perform palisade.insert_audit_event(
        row (tenant, event, now(), by_subject, by_client, action, object, trace_id, '',
             changes)::palisade.audit_events);
end
$$;

-- The same as before, with the column of changes, and without the acts that `audit verify` and the
-- sealing task rely on: the functions below write those.
create or replace function palisade.record_operator_act(tenant uuid, action text, object text, reason text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if starts_with(lower(action), 'audit_') or lower(action) = 'row_changed' then
        raise exception 'only the owner can record acts on the audit trail' using errcode = 'insufficient_privilege';
    end if;
    perform palisade.record_act(tenant, action, object, reason, null);
end
$$;

-- Records an act of a login on a tenant, for the functions of this schema: requests have no right
-- to it. An act on all tenants has the nil UUID as its tenant.
create function palisade.record_act(tenant uuid, action text, object text, reason text, changes jsonb) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    event_tenant uuid := coalesce(tenant, '00000000-0000-0000-0000-000000000000');
    tenant_before text := coalesce(current_setting('app.tenant_id', true), '');
    client text := case when pg_has_role(session_user, 'app_incidents', 'member')
                        then coalesce(current_setting('app.on_behalf_of', true), '') else '' end;
begin
    perform set_config('app.tenant_id', event_tenant::text, true);
    perform palisade.insert_audit_event(
        row (event_tenant, gen_random_uuid(), now(), 'operator:' || session_user, client, action, left(object, 300),
             '', reason, changes)::palisade.audit_events);
    perform set_config('app.tenant_id', tenant_before, true);
end
$$;

-- At the commit: an event for each changed row that no event has taken.
create function palisade.journal_changes() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    pending palisade.audit_pending;
begin
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
create constraint trigger journal_changes after insert on palisade.audit_pending deferrable initially deferred
    for each row when (new.is_first) execute function palisade.journal_changes();

-- An event for a row key that was deleted, and its row was not; or that was updated, but not to a
-- newer data key or index key, as a rotation does. An update to the same values counts: after it, a
-- change of ciphertexts would look like a rotation.
create function palisade.journal_row_key() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    tenant_before text := coalesce(current_setting('app.tenant_id', true), '');
    sealed_columns text;
    is_alive boolean := true;
begin
    if palisade.has_destroyed_keys(old.tenant_id) then
        return null;
    end if;
    if tg_op = 'DELETE' then
        select string_agg(quote_ident(a.attname), ', ') into sealed_columns
        from pg_attribute a
        where a.attrelid = to_regclass(format('public.%I', old.sealed_table)) and not a.attisdropped
          and a.atttypid = to_regtype('palisade.sealed');
        if sealed_columns is null then
            return null;
        end if;
        perform set_config('app.tenant_id', old.tenant_id::text, true);
        execute format('select exists (select from public.%I where tenant_id = $1 and id = $2 '
                       'and num_nonnulls(%s) > 0)', old.sealed_table, sealed_columns)
            into is_alive using old.tenant_id, old.row_id;
        perform set_config('app.tenant_id', tenant_before, true);
    end if;
    if is_alive then
        perform palisade.record_act(
            old.tenant_id, 'row_changed', old.row_id::text, '',
            jsonb_build_array(jsonb_build_object(
                'table', 'row_keys', 'key', old.sealed_table || '/' || old.row_id, 'column', 'wrapped')));
    end if;
    return null;
end
$$;
create constraint trigger journal_deleted_key after delete on palisade.row_keys deferrable initially deferred
    for each row execute function palisade.journal_row_key();
create trigger journal_replaced_key after update on palisade.row_keys
    for each row when ((new.data_key, coalesce(new.index_key, 0)) <= (old.data_key, coalesce(old.index_key, 0)))
    execute function palisade.journal_row_key();

-- Stops accidents of every login, except prune_audit_seal of the owner. The owner can drop the
-- triggers: the logged seals show that.
create or replace function palisade.reject_audit_change() returns trigger
    language plpgsql
as $$
begin
    if tg_op = 'DELETE' and current_setting('palisade.prunes_audit_trail', true) = 'on' then
        return null;
    end if;
    raise exception 'the audit trail is append-only' using errcode = 'insufficient_privilege';
end
$$;

-- Number of events under a seal about rows that a login of the service changed past the service.
create function palisade.count_left_over(seal bigint) returns bigint
    language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select count(*)
    from palisade.audit_seals s
    join palisade.audit_journal j on j.position <= s.upto and j.position > coalesce(
        (select p.upto from palisade.audit_seals p where p.number = s.number - 1), 0)
    where s.number = seal and j.is_left_over
$$;

-- Chooses the root of the pruned trail, the last seal made before that time, and records it. Returns
-- its number. `audit verify` accepts that everything up to the root is gone, because of this event.
-- Restores that the pruning forgets are declared again, for the seals that the log still has.
create function palisade.record_audit_pruning(before timestamptz, reason text) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    root palisade.audit_seals;
    lost jsonb;
begin
    if before > now() - interval '30 days' then
        raise exception 'events younger than 30 days cannot be pruned' using errcode = 'check_violation';
    end if;
    select * into root from palisade.audit_seals s where s.sealed_at < before order by s.number desc limit 1;
    if root is null or not exists (select from palisade.audit_journal j where j.position <= root.upto) then
        raise exception 'no event was sealed before % and is still there', before using errcode = 'check_violation';
    end if;
    perform set_config('app.tenant_id', '00000000-0000-0000-0000-000000000000', true);
    for lost in
        select jsonb_agg(part.seal)
        from (select s.seal, (row_number() over () - 1) / 500 as no
              from (select distinct c.seal
                    from palisade.audit_events e
                    join palisade.audit_journal j on j.of_tenant = e.tenant_id and j.event = e.id
                    cross join jsonb_array_elements(e.changes) as c (seal)
                    where e.tenant_id = '00000000-0000-0000-0000-000000000000' and e.action = 'audit_restored'
                      and j.position <= root.upto and j.digest = palisade.audit_digest(e)
                      and (c.seal ->> 'key')::bigint >= root.number) as s) as part
        group by part.no
    loop
        perform palisade.record_act(
            null, 'audit_restored', 'before the pruning up to seal ' || root.number, reason, lost);
    end loop;
    perform palisade.record_act(
        null, 'audit_pruned', 'up to seal ' || root.number || ' ' || encode(root.digest, 'hex'), reason, null);
    return root.number;
end
$$;

-- Deletes the oldest seal up to the root with its lines and events; of the root, lines and events
-- only. Returns the number of lines; null if there is none left.
create function palisade.prune_audit_seal(root bigint) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    oldest palisade.audit_seals;
    pruned_tenant uuid;
    pruned bigint;
begin
    if not exists (
        select from palisade.audit_seals s
        where s.number = root and s.sealed_at < now() - interval '30 days') then
        raise exception 'seal % is not there, or younger than 30 days', root using errcode = 'check_violation';
    end if;
    -- The root stays from one pruning to the next, without its lines.
    select s.* into oldest from palisade.audit_seals s
    where s.number <= root and exists (select from palisade.audit_journal j where j.position <= s.upto)
    order by s.number limit 1;
    if oldest is null then
        return null;
    end if;
    perform set_config('palisade.prunes_audit_trail', 'on', true);
    for pruned_tenant in select distinct j.of_tenant from palisade.audit_journal j where j.position <= oldest.upto loop
        perform set_config('app.tenant_id', pruned_tenant::text, true);
        delete from palisade.audit_events e using palisade.audit_journal j
        where j.position <= oldest.upto and j.of_tenant = pruned_tenant
          and e.tenant_id = pruned_tenant and e.id = j.event;
    end loop;
    delete from palisade.audit_journal j where j.position <= oldest.upto;
    get diagnostics pruned = row_count;
    delete from palisade.audit_seals s
    where s.number < oldest.number or s.number = oldest.number and oldest.number < root;
    perform set_config('app.tenant_id', '', true);
    perform set_config('palisade.prunes_audit_trail', '', true);
    return pruned;
end
$$;

-- Records that the database was restored to an earlier time. Each element of `lost` is a seal of the
-- time after it: {table, key, column, before}, with its number as key and its logged digest before.
create function palisade.record_audit_restore(restored_to timestamptz, reason text, lost jsonb) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform palisade.record_act(null, 'audit_restored', 'to ' || restored_to, reason, lost);
end
$$;

revoke all on all functions in schema palisade from public;
grant execute on function
    palisade.record_audit_event(uuid, uuid, text, text, text, text, text, boolean), palisade.count_left_over(bigint)
    to app_writer;
