-- Operators' commands wait for no transaction of the service (control AUTHN-11), and the limit on
-- the number of overrides refuses new networks only (control LOG-08).

-- Behind a long transaction, every other session would queue for the table as well.
set local lock_timeout = '5s';

-- A change of an API key, or of the roles of its maker, is no revocation: replicas are only
-- notified, and read the keys of that tenant again. A notification is delivered in commit order and
-- takes no lock before the commit. Its payload is the tenant alone, since every login of the
-- database can listen.
drop trigger api_key_changed on api_keys;
drop trigger roles_changed on roles_seen;
drop function api_key_changed();
drop function roles_changed();
create function api_keys_changed() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_notify('revocations', new.tenant_id::text);
    return null;
end
$$;
create trigger api_keys_changed after update on api_keys
    for each row when ((old.expires_at, old.revoked_at) is distinct from (new.expires_at, new.revoked_at))
    execute function api_keys_changed();
create trigger api_keys_changed after update on roles_seen
    for each row when (new.makes_keys and old.roles is distinct from new.roles)
    execute function api_keys_changed();

-- Records the roles of a subject, as a token says that was issued at a time. An older token than
-- the newest changes nothing; of two tokens of one second, the roles that both name count. Subjects
-- without API keys are deleted some days later, a few at a time. With the owner's rights: the right
-- to delete rows is the right to lock the table.
create or replace function note_roles(tenant uuid, who text, their_roles text[], at_time timestamptz) returns void
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('app.tenant_id', tenant::text, true);
    if exists (select from public.roles_seen s
               where s.tenant_id = tenant and s.subject = who
                 and (s.as_of > at_time or s.as_of = at_time and s.roles <@ their_roles)) then
        return;
    end if;
    insert into public.roles_seen as s (tenant_id, subject, roles, as_of) values (tenant, who, their_roles, at_time)
    on conflict (tenant_id, subject) do update
    set roles = case when s.as_of < at_time then their_roles
                     else array(select unnest(s.roles) intersect select unnest(their_roles) order by 1) end,
        as_of = at_time
    where s.as_of <= at_time;
    delete from public.roles_seen s
    where s.tenant_id = tenant and s.subject = any (array(
        select e.subject from public.roles_seen e
        where e.tenant_id = tenant and e.as_of < now() - interval '3 days' and not e.makes_keys
        order by e.as_of limit 20 for update skip locked));
end
$$;
revoke insert, update (roles, as_of), delete on roles_seen from app_authn;

-- Only operators write revocations from here on. A replica reads the rows of the transactions that
-- its last snapshot did not see the end of, so positions need not be in commit order, and no lock
-- puts them in order.
delete from revocations where kind in ('key', 'maker');
alter table revocations drop constraint revocations_kind_check;
alter table revocations
    add constraint revocations_kind_check
        check (kind in ('token', 'subject', 'sessions', 'client', 'tenant', 'everything')),
    add column written_by xid8 not null default pg_current_xact_id();
create index revocations_by_writer on revocations (written_by);

-- The three below delete what has ended, but for rows that another transaction has locked. They
-- send no notification, which fails at the commit while the queue of notifications is full:
-- `incident revoke` sends it afterwards.
drop function add_revocation(text, text, timestamptz, text);
create or replace function note_revocation(of_kind text, of_value text, before timestamptz, why text) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    noted bigint;
    -- How long the credentials can live: a sign-in a day (the most that max_token_lifetime_seconds
    -- allows), an API key a year, and with it the token that made it. The rest is for clocks that
    -- differ.
    lives interval := case of_kind when 'sessions' then interval '25 hours' else interval '366 days' end;
begin
    if before > now() + interval '5 minutes' then
        raise exception 'what is issued later than now cannot be revoked yet' using errcode = 'check_violation';
    end if;
    perform public.note_operator_act(
        case of_kind when 'tenant' then of_value::uuid end, 'credentials_revoked',
        concat_ws(' ', of_kind, nullif(of_value, ''), 'before', before), why);
    delete from public.revocations where position in (
        select r.position from public.revocations r where r.expires_at < now() for update skip locked);
    insert into public.revocations (kind, value, issued_before, reason, noted_by, noted_at, expires_at)
    values (of_kind, of_value, before, why, session_user, now(), now() + lives)
    returning position into noted;
    return noted;
end
$$;

drop function put_tenant_quota(uuid, text, integer, timestamptz, text);
create or replace function note_tenant_quota(
    tenant uuid, of_quota text, calls integer, until timestamptz, why text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform public.note_operator_act(
        tenant, 'quota_set', concat_ws(' ', of_quota, calls, 'per minute until', until), why);
    delete from public.tenant_quotas where (of_tenant, quota) in (
        select q.of_tenant, q.quota from public.tenant_quotas q where q.expires_at < now() for update skip locked);
    insert into public.tenant_quotas as q (of_tenant, quota, per_minute, reason, noted_by, noted_at, expires_at)
    values (tenant, of_quota, calls, why, session_user, now(), until)
    on conflict (of_tenant, quota) do update
    set per_minute = calls, reason = why, noted_by = session_user, noted_at = now(), expires_at = until;
end
$$;

create or replace function note_measure(of_kind text, of_target text, calls integer, hours integer, why text)
    returns timestamptz
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- In one spelling.
    to_target text := case of_kind when 'address' then of_target::cidr::text else of_target end;
    -- By the clock of the database, wherever the command runs.
    until timestamptz := now() + make_interval(hours => hours);
begin
    perform public.note_operator_act(
        null, 'measure_ordered',
        concat_ws(' ', of_kind, nullif(to_target, ''), calls || ' per minute', 'until', until), why);
    delete from public.measures where (kind, target) in (
        select m.kind, m.target from public.measures m where m.expires_at < now() for update skip locked);
    -- Each request is compared with every network. Changing or ending a limit that is there makes
    -- them no more.
    if of_kind = 'address' and until > now()
       and not exists (select from public.measures m where m.kind = 'address' and m.target = to_target)
       and (select count(*) from public.measures m where m.kind = 'address' and m.expires_at > now()) >= 1000 then
        raise exception 'limit of network overrides reached (1000): end one first, with the option --hours 0';
    end if;
    insert into public.measures as m (kind, target, per_minute, reason, noted_by, noted_at, expires_at)
    values (of_kind, to_target, calls, why, session_user, now(), until)
    on conflict (kind, target) do update
    set per_minute = calls, reason = why, noted_by = session_user, noted_at = now(), expires_at = until;
    return until;
end
$$;

revoke all on function api_keys_changed() from public;
