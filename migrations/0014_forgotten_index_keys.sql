-- A key of blind indexes that was forgotten is not used again, and nothing has it (control CRYPTO-06). A tenant whose data
-- keys are destroyed is taken out of the indexes (control CRYPTO-08).

-- Behind somebody who reads for long, everybody else would wait as well.
set local lock_timeout = '5s';

-- The row stays, so that no replica that goes by it still stores what the others cannot find, or notes it anew.
alter table index_keys add column forgotten_at timestamptz;
revoke insert on index_keys from app_keys;
grant insert (version, check_value) on index_keys to app_keys;

-- A customer without index entries is possible now; that nobody stores one, the trigger sees to. The next migration looks at
-- what is there, without keeping anybody from it.
alter table customers drop constraint erased_is_empty;
alter table customers add constraint erased_is_empty check (
    case when erased_at is not null
             then coalesce(email, phone, tax_id, bank_account, address, email_index, tax_id_index) is null
                  and name is null
         when email_index is null then name is not null and email is not null and tax_id_index is null
         else name is not null and email is not null and (tax_id is null) = (tax_id_index is null) end) not valid;

-- Whoever is stored gets index entries, by keys that are there, unless the tenant's data keys are destroyed; then none.
-- Whoever forgets such a key or destroys those waits for the transactions that this has let through, and it for them.
create function customer_is_indexed() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    entry bytea;
    destroyed boolean;
begin
    if new.erased_at is not null then
        return new;
    end if;
    -- By the keys by which it was indexed before: nobody has forgotten those, and the row is seen by who is about to.
    if tg_op = 'UPDATE'
       and substring(new.email_index from 1 for 2) is not distinct from substring(old.email_index from 1 for 2)
       and substring(new.tax_id_index from 1 for 2) is not distinct from substring(old.tax_id_index from 1 for 2) then
        return new;
    end if;
    -- Not stronger than what refers to it takes anyway: wrapping it anew need not wait.
    select k.wrapped is null into destroyed from public.data_keys k
    where k.of_tenant = new.tenant_id order by k.version desc limit 1 for key share;
    if coalesce(destroyed, false) then
        if coalesce(new.email_index, new.tax_id_index) is not null then
            raise exception 'the data keys of the tenant are destroyed'
                using errcode = 'check_violation', constraint = 'data_keys_are_destroyed';
        end if;
        return new;
    end if;
    if new.email_index is null then
        raise exception 'a customer without index entries is found by nobody'
            using errcode = 'check_violation', constraint = 'customer_is_indexed';
    end if;
    foreach entry in array array[new.email_index, new.tax_id_index]::bytea[] loop
        continue when entry is null;
        perform from public.index_keys k
        where k.version = get_byte(entry, 0) * 256 + get_byte(entry, 1) and k.forgotten_at is null
        for key share;
        if not found then
            raise exception 'the index key is not known, or was forgotten'
                using errcode = 'foreign_key_violation', constraint = 'index_key_is_there';
        end if;
    end loop;
    return new;
end
$$;
create trigger customer_is_indexed before insert or update of email_index, tax_id_index, erased_at on customers
    for each row execute function customer_is_indexed();

-- A tenant of whom some customer has an index key; null if there is none.
create function index_key_is_needed_by(wanted integer) returns uuid
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    of_key bytea := decode(lpad(to_hex(wanted), 4, '0'), 'hex');
    after_key bytea := of_key || decode(repeat('ff', 17), 'hex');
    tenant uuid;
begin
    -- Who has customers has data keys. Row-level security is for owners too, so each is asked as itself.
    for tenant in select distinct k.of_tenant from public.data_keys k loop
        perform set_config('app.tenant_id', tenant::text, true);
        if exists (select from public.customers c where c.tenant_id = tenant and c.erased_at is null
                   and c.email_index between of_key and after_key)
           or exists (select from public.customers c where c.tenant_id = tenant and c.erased_at is null
                      and c.tax_id_index between of_key and after_key) then
            return tenant;
        end if;
    end loop;
    return null;
end
$$;

-- Forgets a key, if it is known and not the only one and no customer of any tenant has it; says which of these is not so.
create function forget_index_key(wanted integer, out known boolean, out only_one boolean, out needed_by uuid)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    -- Else what was let through while this waited would not be seen.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'an index key is forgotten in a transaction that is read committed';
    end if;
    -- One at a time: of two keys, two operators could each forget the other one.
    lock table public.index_keys in share update exclusive mode;
    known := exists (select from public.index_keys k where k.version = wanted and k.forgotten_at is null);
    only_one := not exists (select from public.index_keys k where k.version <> wanted and k.forgotten_at is null);
    if not known or only_one then
        return;
    end if;
    -- Most likely it is needed, if it is at all, by somebody who is there already: for that nobody waits.
    needed_by := public.index_key_is_needed_by(wanted);
    if needed_by is not null then
        return;
    end if;
    -- From here on nothing gets it, and what did get it is visible.
    perform from public.index_keys k where k.version = wanted for update;
    needed_by := public.index_key_is_needed_by(wanted);
    if needed_by is not null then
        return;
    end if;
    update public.index_keys k set forgotten_at = now() where k.version = wanted;
    perform public.note_operator_act(null, 'index_key_forgotten', format('index key %s', wanted), '');
end
$$;

-- Goes over up to so many customers of a tenant whose data keys are destroyed, in the order and with the locks of whoever seals
-- anew, and takes them out of the indexes. Says how many that were, and which was the last; null after all of them.
create function clear_indexes(tenant uuid, before_at timestamptz, before_id uuid, most integer,
                              out cleared bigint, out last_at timestamptz, out last_id uuid)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from public.data_keys k where k.of_tenant = tenant)
       or exists (select from public.data_keys k where k.of_tenant = tenant and k.wrapped is not null) then
        raise exception 'the data keys of this tenant are not destroyed';
    end if;
    perform set_config('app.tenant_id', tenant::text, true);
    with page as materialized (
        select i.created_at, i.id from public.customers i
        where i.tenant_id = tenant and i.erased_at is null and (i.created_at, i.id) < (before_at, before_id)
        order by i.created_at desc, i.id desc limit most for no key update
    ), done as (
        update public.customers c set email_index = null, tax_id_index = null from page p
        where c.tenant_id = tenant and c.id = p.id and c.email_index is not null
        returning c.id
    ), last as (
        select p.created_at, p.id from page p order by p.created_at, p.id limit 1
    )
    select (select count(*) from done), l.created_at, l.id into cleared, last_at, last_id
    from (select) one left join last l on true;
end
$$;

revoke all on function customer_is_indexed(), index_key_is_needed_by(integer), forget_index_key(integer),
    clear_indexes(uuid, timestamptz, uuid, integer) from public;
grant execute on function forget_index_key(integer), clear_indexes(uuid, timestamptz, uuid, integer) to app_operator;
-- Only through the function.
revoke delete on index_keys from app_operator;
