-- Revocations and overrides (controls AUTHN-11, RATE-03 and LOG-08). Operators write them; every
-- replica reads all of them, and no operation of the API reaches them.
--
-- The functions here wait for no transaction of the service: rows that another transaction has
-- locked are not cleaned up. Each act is in the audit trail.
set local lock_timeout = '5s';

-- Credentials that are not accepted any more, although they have not expired.
create table palisade.revocations (
    position bigint primary key generated always as identity,
    -- token, client, tenant: by value. subject: sign-ins and API keys of a person. sessions:
    -- sign-ins only.
    kind text not null check (kind in ('token', 'subject', 'sessions', 'client', 'tenant', 'everything')),
    value text not null check (length(value) <= 255 and (value = '') = (kind = 'everything')),
    -- Credentials that were issued later are accepted.
    issued_before timestamptz not null check (isfinite(issued_before)),
    reason text not null check (length(reason) between 1 and 500),
    -- The database login.
    recorded_by text not null,
    recorded_at timestamptz not null,
    -- When all revoked credentials have expired.
    expires_at timestamptz not null check (isfinite(expires_at)),
    -- A replica reads the rows of the transactions that its last snapshot did not see the end of.
    -- So positions need not be in commit order, and no lock puts them in order.
    written_by xid8 not null default pg_current_xact_id()
);
create index revocations_by_end on palisade.revocations (expires_at);
create index revocations_by_writer on palisade.revocations (written_by);

-- Records a revocation. Returns its position. Sends no notification, which would fail at the commit
-- while the queue of notifications is full: `incident revoke` sends it afterwards.
create function palisade.record_revocation(new_kind text, new_value text, before timestamptz, new_reason text)
    returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    new_position bigint;
    -- The longest life of the credentials. A sign-in lives a day (the maximum of
    -- max_token_lifetime_seconds), an API key a year. Revoking the token that created a key revokes
    -- the key, so that revocation is kept a year too. The rest is for clock differences.
    lifetime interval := case new_kind when 'sessions' then interval '25 hours' else interval '366 days' end;
begin
    if before > now() + interval '5 minutes' then
        raise exception 'credentials that are issued later cannot be revoked yet' using errcode = 'check_violation';
    end if;
    perform palisade.record_operator_act(
        case new_kind when 'tenant' then new_value::uuid end, 'credentials_revoked',
        concat_ws(' ', new_kind, nullif(new_value, ''), 'before', before), new_reason);
    delete from palisade.revocations where position in (
        select r.position from palisade.revocations r where r.expires_at < now() for update skip locked);
    insert into palisade.revocations (kind, value, issued_before, reason, recorded_by, recorded_at, expires_at)
    values (new_kind, new_value, before, new_reason, session_user, now(), now() + lifetime)
    returning position into new_position;
    return new_position;
end
$$;

-- Quotas of a tenant that replace those of the settings for a while.
create table palisade.tenant_quotas (
    of_tenant uuid not null,
    -- tenant: of all callers of the tenant together. The others: of each caller.
    quota text not null check (quota in ('tenant', 'read', 'write', 'sensitive', 'export')),
    per_minute integer not null check (per_minute between 1 and 1000000),
    reason text not null check (length(reason) between 1 and 500),
    -- The database login.
    recorded_by text not null,
    recorded_at timestamptz not null,
    expires_at timestamptz not null check (isfinite(expires_at)),
    primary key (of_tenant, quota)
);
create index tenant_quotas_by_end on palisade.tenant_quotas (expires_at);

create function palisade.set_tenant_quota(
    tenant uuid, new_quota text, calls integer, until timestamptz, new_reason text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform palisade.record_operator_act(
        tenant, 'quota_set', concat_ws(' ', new_quota, calls, 'per minute until', until), new_reason);
    delete from palisade.tenant_quotas where (of_tenant, quota) in (
        select q.of_tenant, q.quota from palisade.tenant_quotas q where q.expires_at < now() for update skip locked);
    insert into palisade.tenant_quotas as q
        (of_tenant, quota, per_minute, reason, recorded_by, recorded_at, expires_at)
    values (tenant, new_quota, calls, new_reason, session_user, now(), until)
    on conflict (of_tenant, quota) do update
    set per_minute = calls, reason = new_reason, recorded_by = session_user, recorded_at = now(), expires_at = until;
end
$$;

-- Overrides for all tenants, for a while.
create table palisade.overrides (
    -- class: a quota of each tenant that has none of its own. address: the requests of each address
    -- in a network. read_only: changes are refused.
    kind text not null check (kind in ('class', 'address', 'read_only')),
    -- The name of a quota, a network, or nothing.
    target text not null,
    per_minute integer check (per_minute between 0 and 1000000),
    reason text not null check (length(reason) between 1 and 500),
    -- The database login.
    recorded_by text not null,
    recorded_at timestamptz not null,
    expires_at timestamptz not null check (isfinite(expires_at)),
    primary key (kind, target),
    check (case kind
        when 'class' then target in ('tenant', 'read', 'write', 'sensitive', 'export') and coalesce(per_minute, 0) > 0
        when 'address' then target::cidr is not null and per_minute is not null
        else target = '' and per_minute is null
    end)
);
create index overrides_by_end on palisade.overrides (expires_at);

-- Sets an override, or ends it by 0 hours. Returns its end, by the clock of the database.
create function palisade.set_override(
    new_kind text, wanted_target text, calls integer, hours integer, new_reason text) returns timestamptz
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- In one spelling.
    new_target text := case new_kind when 'address' then wanted_target::cidr::text else wanted_target end;
    until timestamptz := now() + make_interval(hours => hours);
begin
    perform palisade.record_operator_act(
        null, 'override_set',
        concat_ws(' ', new_kind, nullif(new_target, ''), calls || ' per minute', 'until', until), new_reason);
    delete from palisade.overrides where (kind, target) in (
        select o.kind, o.target from palisade.overrides o where o.expires_at < now() for update skip locked);
    -- Each request is compared with every network. Changing or ending a limit adds none.
    if new_kind = 'address' and until > now()
       and not exists (select from palisade.overrides o where o.kind = 'address' and o.target = new_target)
       and (select count(*) from palisade.overrides o where o.kind = 'address' and o.expires_at > now()) >= 1000 then
        raise exception 'limit of network overrides reached (1000): end one first, with the option --hours 0';
    end if;
    insert into palisade.overrides as o
        (kind, target, per_minute, reason, recorded_by, recorded_at, expires_at)
    values (new_kind, new_target, calls, new_reason, session_user, now(), until)
    on conflict (kind, target) do update
    set per_minute = calls, reason = new_reason, recorded_by = session_user, recorded_at = now(), expires_at = until;
    return until;
end
$$;

revoke all on all functions in schema palisade from public;
grant execute on function
    palisade.record_revocation(text, text, timestamptz, text),
    palisade.set_tenant_quota(uuid, text, integer, timestamptz, text),
    palisade.set_override(text, text, integer, integer, text)
    to app_operator, app_incidents;
grant select on palisade.revocations, palisade.tenant_quotas, palisade.overrides to app_authn, app_operator;
