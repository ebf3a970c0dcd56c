-- Keys of sealed rows (controls CRYPTO-02 to CRYPTO-08). The service seals: no statement sees a
-- plain text. docs/keys.md has a diagram.
--
-- Each sealed row has a row key. A data key of the tenant wraps it, and a master key, which no
-- database holds, wraps the data key. Blind indexes have keys of their own, which are in no
-- database either.
--
-- Lock order, everywhere: first the row of the service, then its row key.
set local lock_timeout = '5s';

-- Format 1: 1 byte of format, 12 of nonce, the ciphertext, 16 of tag.
create domain palisade.sealed as bytea check (length(value) between 29 and 4096 and get_byte(value, 0) = 1);
-- A truncated HMAC. Equal for equal values of a column of a tenant.
create domain palisade.blind_index as bytea check (length(value) = 16);

-- Register of master keys. A service with another key under a registered name does not start,
-- before it wraps anything with the wrong key.
create table palisade.master_keys (
    -- Such as keyset:2.
    name text primary key check (length(name) between 1 and 100),
    -- A constant text that the key sealed.
    check_value bytea not null check (length(check_value) between 29 and 4096)
);

-- Register of index keys. A service without one of these, or with another key under its version,
-- does not start: its searches would miss rows.
create table palisade.index_keys (
    version integer primary key check (version between 1 and 65535),
    -- The HMAC of a constant text.
    check_value bytea not null check (length(check_value) = 16),
    -- The row of a forgotten key stays, so that no replica registers the version again.
    forgotten_at timestamptz,
    -- Rows refer to this column. So the database refuses to forget a key that a row is indexed
    -- with, and refuses a row that is indexed with a forgotten key.
    version_in_use integer unique generated always as (case when forgotten_at is null then version end) stored
);

-- Data keys of tenants, wrapped by a master key.
create table palisade.data_keys (
    of_tenant uuid not null,
    version integer not null check (version > 0),
    -- The name of the master key, such as keyset:2.
    wrapped_by text not null check (length(wrapped_by) between 1 and 100),
    -- Null if the key was destroyed. The row stays, so that no other key gets its version.
    wrapped bytea check (length(wrapped) between 29 and 4096),
    created_at timestamptz not null,
    destroyed_at timestamptz,
    primary key (of_tenant, version),
    constraint destroyed_is_empty check ((wrapped is null) = (destroyed_at is not null))
);
create index data_keys_by_master on palisade.data_keys (wrapped_by) where wrapped is not null;

-- Row keys, one for each sealed row of any table. They are in a table of their own, so
-- that rotation and erasure are the same for every sealed table.
create table palisade.row_keys (
    tenant_id uuid not null,
    sealed_table text not null check (sealed_table ~ '^[a-z][a-z_]{0,62}$'),
    row_id uuid not null,
    -- The data key that wraps it.
    data_key integer not null,
    wrapped palisade.sealed not null,
    -- The index key of all blind indexes of the row. Null if there are none: the table has no blind
    -- index, or the data keys of the tenant are destroyed.
    index_key integer,
    primary key (tenant_id, sealed_table, row_id),
    -- The database refuses to delete a key that a row needs, whatever is written concurrently.
    constraint data_key_exists foreign key (tenant_id, data_key) references palisade.data_keys (of_tenant, version),
    constraint index_key_in_use foreign key (index_key) references palisade.index_keys (version_in_use)
);
-- For the foreign keys, and for rotations, which read rows of one older key in order.
create index row_keys_by_data_key on palisade.row_keys (tenant_id, data_key, sealed_table, row_id);
create index row_keys_by_index_key on palisade.row_keys (index_key, tenant_id, sealed_table, row_id);
select palisade.isolate_tenants('palisade.row_keys');

-- Refuses a row key, or blind indexes, of a tenant with destroyed data keys: no replica could read
-- the row, and a replica may have a data key in its cache. The lock makes a destruction wait for
-- this transaction, and this one for a destruction. Rewrapping a data key does not wait for it.
create function palisade.reject_destroyed_tenant() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    is_destroyed boolean;
begin
    select k.wrapped is null into is_destroyed from palisade.data_keys k
    where k.of_tenant = new.tenant_id order by k.version desc limit 1 for key share;
    if is_destroyed then
        raise exception 'the data keys of the tenant are destroyed'
            using errcode = 'check_violation', constraint = 'data_keys_not_destroyed';
    end if;
    return new;
end
$$;
create trigger reject_destroyed_tenant before insert or update of data_key on palisade.row_keys
    for each row execute function palisade.reject_destroyed_tenant();
create trigger reject_index_of_destroyed_tenant before update of index_key on palisade.row_keys
    for each row when (new.index_key is not null) execute function palisade.reject_destroyed_tenant();

-- Deletes the key of a deleted row. The service attaches it to each sealed table: `after delete`.
create function palisade.delete_row_key() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    delete from palisade.row_keys k
    where k.tenant_id = old.tenant_id and k.sealed_table = tg_table_name and k.row_id = old.id;
    return null;
end
$$;

-- Removes the next rows of a tenant with destroyed data keys from all blind indexes. Returns their
-- number; null if none was left.
create function palisade.clear_blind_indexes(tenant uuid, batch_size integer) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    batch_table text;
    batch uuid[];
    columns text;
    assignments text;
    cleared bigint := 0;
begin
    if not exists (select from palisade.data_keys k where k.of_tenant = tenant)
       or exists (select from palisade.data_keys k where k.of_tenant = tenant and k.wrapped is not null) then
        raise exception 'the data keys of this tenant are not destroyed';
    end if;
    perform set_config('app.tenant_id', tenant::text, true);
    select k.sealed_table, array_agg(k.row_id order by k.row_id) into batch_table, batch
    from palisade.index_keys i
    cross join lateral (
        select r.sealed_table, r.row_id from palisade.row_keys r
        where r.tenant_id = tenant and r.index_key = i.version order by r.sealed_table, r.row_id limit batch_size) k
    group by k.sealed_table order by k.sealed_table limit 1;
    if batch is null then
        return null;
    end if;
    select string_agg(quote_ident(a.attname), ', '), string_agg(quote_ident(a.attname) || ' = null', ', ')
    into columns, assignments
    from pg_attribute a
    where a.attrelid = to_regclass(format('public.%I', batch_table)) and not a.attisdropped
      and a.atttypid = 'palisade.blind_index'::regtype;
    if columns is not null then
        -- In the order of rotations, which avoids deadlocks. A row without an entry is not changed:
        -- the service may refuse a change of an erased one.
        execute format(
            'with locked as materialized (
                 select tenant_id, id from public.%1$I
                 where tenant_id = $1 and id = any ($2) and num_nonnulls(%2$s) > 0 order by id for no key update)
             update public.%1$I r set %3$s from locked l where r.tenant_id = l.tenant_id and r.id = l.id',
            batch_table, columns, assignments) using tenant, batch;
        get diagnostics cleared = row_count;
    end if;
    update palisade.row_keys k set index_key = null
    where k.tenant_id = tenant and k.sealed_table = batch_table and k.row_id = any (batch);
    return cleared;
end
$$;

revoke all on all functions in schema palisade from public;
grant execute on function palisade.clear_blind_indexes(uuid, integer) to app_operator;
grant select on palisade.row_keys to app_reader, app_writer;
grant insert, delete, update (data_key, wrapped, index_key) on palisade.row_keys to app_writer;
grant select, insert on palisade.master_keys, palisade.data_keys to app_keys;
grant select, insert (version, check_value) on palisade.index_keys to app_keys;
grant select, delete on palisade.master_keys, palisade.data_keys to app_operator;
grant update (wrapped_by, wrapped, destroyed_at) on palisade.data_keys to app_operator;
grant select, update (forgotten_at) on palisade.index_keys to app_operator;
