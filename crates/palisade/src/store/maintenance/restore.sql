-- Ends a restore, before indexes, triggers and row-level security exist. Puts the kept keys in
-- place, and erases again what was erased or destroyed after the backup (CRYPTO-08).
insert into palisade.data_keys select * from pg_temp.kept_data_keys;
update palisade.data_keys k set wrapped = null, destroyed_at = now()
where k.wrapped is not null and k.of_tenant in (select d.tenant from pg_temp.destroyed d);
insert into palisade.row_keys select * from pg_temp.kept_keys;
update palisade.row_keys k set index_key = null
where k.index_key is not null and k.tenant_id in (select d.tenant from pg_temp.destroyed d);
analyze palisade.row_keys;

create temporary table erased_rows (tenant uuid, id uuid) on commit drop;
create temporary table sealed_rows (number bigint) on commit drop;
do $$
declare
    listed record;
    sealed text;
    indexes text;
    assignments text;
    number bigint;
begin
    if exists (select from palisade.row_keys k where k.index_key is not null
               and not exists (select from palisade.index_keys i where i.version_in_use = k.index_key)) then
        raise exception 'rows were re-encrypted after this backup: name the file of keys that was written with it first';
    end if;
    for listed in
        select s.name, s.erased_at, s.cleared, c.oid
        from pg_temp.sealed_tables s
        join pg_catalog.pg_class c on c.relname = s.name and c.relnamespace = 'public'::regnamespace
    loop
        -- Keys of rows that are newer than the backup.
        execute format('delete from palisade.row_keys k where k.sealed_table = %L and not exists (
                            select from public.%I r where r.tenant_id = k.tenant_id and r.id = k.row_id)',
                       listed.name, listed.name);
        select string_agg(format('%I', a.attname), ', ') filter (where a.atttypid = 'palisade.sealed'::regtype),
               string_agg(format('%I = null', a.attname), ', ')
                   filter (where a.atttypid = 'palisade.blind_index'::regtype),
               string_agg(case when a.attname = listed.erased_at then format('%I = now()', a.attname)
                               else format('%I = null', a.attname) end, ', ')
                   filter (where a.atttypid in ('palisade.sealed'::regtype, 'palisade.blind_index'::regtype)
                                 or a.attname = listed.erased_at or a.attname = any (listed.cleared))
        into sealed, indexes, assignments
        from pg_catalog.pg_attribute a where a.attrelid = listed.oid and a.attnum > 0 and not a.attisdropped;
        execute format('insert into pg_temp.sealed_rows select count(*) from public.%I where num_nonnulls(%s) > 0',
                       listed.name, sealed);
        if listed.erased_at is not null then
            execute format('with erased as (
                                update public.%1$I r set %2$s where r.%3$I is null and not exists (
                                    select from palisade.row_keys k
                                    where k.tenant_id = r.tenant_id and k.sealed_table = %1$L and k.row_id = r.id)
                                returning r.tenant_id, r.id)
                            insert into pg_temp.erased_rows select * from erased',
                           listed.name, assignments, listed.erased_at);
        end if;
        if indexes is not null then
            execute format('update public.%I r set %s
                            where r.tenant_id in (select d.tenant from pg_temp.destroyed d)', listed.name, indexes);
        end if;
    end loop;
end
$$;
-- A sign-out after the backup is unknown here, so no session lives again (AUTHN-16).
do $$
begin
    if to_regclass('palisade.sessions') is not null then
        truncate palisade.sessions;
    end if;
end
$$;
-- Stored responses hold what they were the response for.
update palisade.idempotency_keys k set body = null, location = null
from pg_temp.erased_rows e where k.tenant_id = e.tenant and right(k.location, 36) = e.id::text;
delete from palisade.idempotency_keys k where k.tenant_id in (select d.tenant from pg_temp.destroyed d);
