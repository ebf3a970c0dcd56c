-- Browser sessions (controls AUTHN-14, AUTHN-15, AUTHN-16).
--
-- The login app_authn looks sessions up before there is a principal. It has no right on the table
-- itself: each function does one thing, in one tenant. The logins of operations cannot read what a
-- cookie is compared with.
set local lock_timeout = '5s';

create table palisade.sessions (
    tenant_id uuid not null,
    id uuid not null,
    -- The name of the further issuer; empty for the first one.
    issuer text not null,
    -- The session at the issuer (`sid`), as revocations name it.
    issuer_session text check (length(issuer_session) between 1 and 255),
    -- The session as the issuer names it, for the sign-out there.
    logout_hint text check (length(logout_hint) between 1 and 255),
    -- The verified claims of the newest access token.
    subject text not null check (length(subject) between 1 and 255),
    client text not null check (length(client) between 1 and 255),
    roles text[] not null,
    scopes text[] not null,
    token_id text check (length(token_id) between 1 and 255),
    access_expires_at timestamptz not null,
    -- When and how the person signed in, as the issuer says it (RFC 9470).
    auth_time timestamptz,
    acr text check (length(acr) <= 255),
    -- SHA-256 of the secret in the cookie, and how often the cookie was replaced.
    handle_hash bytea not null check (length(handle_hash) = 32),
    generation integer not null check (generation >= 0),
    rotated_at timestamptz not null,
    -- The issuer's refresh token, encrypted with a key that needs the secret in the cookie.
    refresh_token bytea,
    -- Until then, one request refreshes the session, and others wait for it.
    claimed_until timestamptz,
    network text not null check (length(network) <= 64),
    user_agent text not null check (length(user_agent) <= 200),
    created_at timestamptz not null,
    last_used_at timestamptz not null,
    idle_expires_at timestamptz not null,
    expires_at timestamptz not null,
    ended_at timestamptz,
    primary key (tenant_id, id)
);
create index sessions_by_subject on palisade.sessions (tenant_id, subject, id desc) where ended_at is null;
create index sessions_by_end on palisade.sessions (tenant_id, (least(expires_at, ended_at)));
select palisade.isolate_tenants('palisade.sessions');
create trigger register_tenant after insert on palisade.sessions
    for each row execute function palisade.register_tenant();

-- Stores a new session. The names of the members are those of the columns.
create function palisade.open_session(tenant uuid, session jsonb) returns void
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('app.tenant_id', tenant::text, true);
    insert into palisade.sessions select s.* from jsonb_populate_record(null::palisade.sessions, session) s;
end
$$;

-- Reads a session and records that it was used: every half minute, and when it comes from another
-- network or browser. Returns the row as it was before.
create function palisade.use_session(
    tenant uuid, wanted uuid, at_time timestamptz, idle_until timestamptz, seen_network text, seen_agent text)
    returns setof palisade.sessions
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    s palisade.sessions;
begin
    perform set_config('app.tenant_id', tenant::text, true);
    select x.* into s from palisade.sessions x where x.tenant_id = tenant and x.id = wanted;
    if not found then
        return;
    end if;
    if s.ended_at is null and at_time < least(s.idle_expires_at, s.expires_at)
       and (s.last_used_at < at_time - interval '30 seconds'
            or (s.network, s.user_agent) is distinct from (seen_network, seen_agent)) then
        update palisade.sessions x
        set last_used_at = greatest(x.last_used_at, at_time), idle_expires_at = greatest(x.idle_expires_at, idle_until),
            network = seen_network, user_agent = seen_agent
        where x.tenant_id = tenant and x.id = wanted and x.ended_at is null;
    end if;
    return next s;
end
$$;

-- Reads a session.
create function palisade.read_session(tenant uuid, wanted uuid) returns setof palisade.sessions
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('app.tenant_id', tenant::text, true);
    return query select x.* from palisade.sessions x where x.tenant_id = tenant and x.id = wanted;
end
$$;

-- Claims the refresh of a session that still has this refresh token (AUTHN-15): one request of all
-- replicas has it, for as long as an answer of the issuer may take. Returns the end of the claim; null
-- if another request has it, or has had it. The generation of the cookie is not enough: a renewal for
-- an operation keeps it, and a second one would send the issuer a refresh token that was used.
create function palisade.claim_refresh(tenant uuid, wanted uuid, held_token bytea) returns timestamptz
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    claim timestamptz := clock_timestamp() + interval '8 seconds';
begin
    perform set_config('app.tenant_id', tenant::text, true);
    update palisade.sessions x set claimed_until = claim
    where x.tenant_id = tenant and x.id = wanted and x.refresh_token = held_token and x.ended_at is null
      and (x.claimed_until is null or x.claimed_until < clock_timestamp());
    return case when found then claim end;
end
$$;

-- Ends a claim, and changes the columns that are members of the object. Returns whether the claim was
-- still there.
create function palisade.finish_refresh(tenant uuid, wanted uuid, claim timestamptz, changes jsonb) returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    s palisade.sessions;
begin
    perform set_config('app.tenant_id', tenant::text, true);
    select x.* into s from palisade.sessions x
    where x.tenant_id = tenant and x.id = wanted and x.claimed_until = claim and x.ended_at is null
    for no key update;
    if not found then
        return false;
    end if;
    s := jsonb_populate_record(s, changes);
    update palisade.sessions x
    set claimed_until = null, client = s.client, roles = s.roles, scopes = s.scopes, token_id = s.token_id,
        access_expires_at = s.access_expires_at, auth_time = s.auth_time, acr = s.acr, handle_hash = s.handle_hash,
        generation = s.generation, rotated_at = s.rotated_at, refresh_token = s.refresh_token
    where x.tenant_id = tenant and x.id = wanted;
    return true;
end
$$;

-- Ends a session, and deletes its refresh token. Returns whether it was still there.
create function palisade.end_session(tenant uuid, wanted uuid, at_time timestamptz) returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('app.tenant_id', tenant::text, true);
    update palisade.sessions x set ended_at = at_time, refresh_token = null, claimed_until = null
    where x.tenant_id = tenant and x.id = wanted and x.ended_at is null;
    return found;
end
$$;

-- Records a sign-out at the issuer, unless this logout token was used before: the revocation of a
-- session at the issuer (kind token), or of all sign-ins of a person (kind sessions). It is kept as
-- long as a sign-in lives.
create function palisade.record_logout(
    logout_token bytea, token_until timestamptz, new_kind text, new_value text, at_time timestamptz) returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if new_kind not in ('token', 'sessions') or new_kind = 'token' and new_value not like 'sid:%' then
        raise exception 'a sign-out revokes sign-ins only' using errcode = 'insufficient_privilege';
    end if;
    if not palisade.use_once(logout_token, token_until) then
        return false;
    end if;
    insert into palisade.revocations (kind, value, issued_before, reason, recorded_by, recorded_at, expires_at)
    values (new_kind, new_value, at_time, 'signed out at the issuer', session_user, now(), at_time + interval '25 hours');
    return true;
end
$$;

-- Deletes sessions of a tenant that ended a day ago, at most 1,000. Returns their number.
create function palisade.sweep_sessions(tenant uuid) returns bigint
    language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    deleted bigint;
begin
    delete from palisade.sessions x where x.tenant_id = tenant and x.id = any (array(
        select e.id from palisade.sessions e
        where e.tenant_id = tenant and least(e.expires_at, e.ended_at) < now() - interval '1 day'
        order by least(e.expires_at, e.ended_at) limit 1000 for update skip locked));
    get diagnostics deleted = row_count;
    return deleted;
end
$$;

-- As in migration 7, with the functions of each feature that has rows to delete.
create or replace function palisade.sweep(after_tenant uuid) returns uuid
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    of_features text[] := array(
        select f from unnest(array['sweep_api_keys', 'sweep_sessions']) as f
        where to_regprocedure('palisade.' || f || '(uuid)') is not null);
    feature text;
    swept uuid := after_tenant;
    number integer := 0;
    deleted bigint;
    most bigint;
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
        get diagnostics most = row_count;
        foreach feature in array of_features loop
            execute format('select palisade.%I($1)', feature) into deleted using tenant;
            most := greatest(most, deleted);
        end loop;
        if most >= 1000 then
            return swept;
        end if;
        swept := tenant;
        number := number + 1;
    end loop;
    return case when number = 100 then swept end;
end
$$;

revoke all on function
    palisade.open_session(uuid, jsonb),
    palisade.use_session(uuid, uuid, timestamptz, timestamptz, text, text), palisade.read_session(uuid, uuid),
    palisade.claim_refresh(uuid, uuid, bytea), palisade.finish_refresh(uuid, uuid, timestamptz, jsonb),
    palisade.end_session(uuid, uuid, timestamptz),
    palisade.record_logout(bytea, timestamptz, text, text, timestamptz), palisade.sweep_sessions(uuid)
    from public;
grant execute on function
    palisade.open_session(uuid, jsonb),
    palisade.use_session(uuid, uuid, timestamptz, timestamptz, text, text), palisade.read_session(uuid, uuid),
    palisade.claim_refresh(uuid, uuid, bytea), palisade.finish_refresh(uuid, uuid, timestamptz, jsonb),
    palisade.end_session(uuid, uuid, timestamptz),
    palisade.record_logout(bytea, timestamptz, text, text, timestamptz)
    to app_authn;
grant select (tenant_id, id, subject, network, user_agent, created_at, last_used_at, idle_expires_at, expires_at,
              ended_at)
    on palisade.sessions to app_reader, app_writer;
grant update (ended_at, refresh_token, claimed_until) on palisade.sessions to app_writer;
