-- What operators order in an incident, for a while (control LOG-08). It belongs to operators: every replica reads all of it
-- each second, and no operation reaches it.
create table measures (
    -- class: a quota of everybody whose tenant has none of its own. address: of each address in a range, in front of
    -- everything else. read_only: nobody changes anything.
    kind text not null check (kind in ('class', 'address', 'read_only')),
    -- A quota's name; a range; nothing.
    target text not null,
    per_minute integer check (per_minute between 0 and 1000000),
    reason text not null check (length(reason) between 1 and 500),
    -- The database login.
    noted_by text not null,
    noted_at timestamptz not null,
    expires_at timestamptz not null check (isfinite(expires_at)),
    primary key (kind, target),
    check (case kind
        when 'class' then target in ('tenant', 'read', 'write', 'sensitive', 'export') and coalesce(per_minute, 0) > 0
        when 'address' then target::cidr is not null and per_minute is not null
        else target = '' and per_minute is null
    end)
);

create index measures_by_end on measures (expires_at);

create function note_measure(of_kind text, of_target text, calls integer, hours integer, why text) returns timestamptz
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- In one spelling.
    to_target text := case of_kind when 'address' then of_target::cidr::text else of_target end;
    -- By one clock, whoever's command it was.
    until timestamptz := now() + make_interval(hours => hours);
begin
    perform public.note_operator_act(
        null, 'measure_ordered',
        concat_ws(' ', of_kind, nullif(to_target, ''), calls || ' per minute', 'until', until), why);
    delete from public.measures where expires_at < now();
    -- Each is looked through for each request.
    if (select count(*) from public.measures) >= 1000 then
        raise exception 'there are 1000 measures already';
    end if;
    insert into public.measures as m (kind, target, per_minute, reason, noted_by, noted_at, expires_at)
    values (of_kind, to_target, calls, why, session_user, now(), until)
    on conflict (kind, target) do update
    set per_minute = calls, reason = why, noted_by = session_user, noted_at = now(), expires_at = until;
    return until;
end
$$;

-- Sign-ins of a person: not the API keys they made.
alter table revocations drop constraint revocations_kind_check;
alter table revocations add constraint revocations_kind_check
    check (kind in ('token', 'subject', 'sessions', 'client', 'tenant', 'everything', 'key'));

create or replace function add_revocation(of_kind text, of_value text, before timestamptz, why text) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    noted bigint;
    -- How long what it concerns can live: a token a day (the most that max_token_lifetime_seconds allows), an API
    -- key a year; and what is remembered of a key, minutes. The rest is for clocks that differ.
    lives interval := case of_kind when 'token' then interval '25 hours' when 'sessions' then interval '25 hours'
                                   when 'key' then interval '1 hour'
                                   else interval '366 days' end;
begin
    if before > now() + interval '5 minutes' then
        raise exception 'what is issued later than now cannot be revoked yet' using errcode = 'check_violation';
    end if;
    -- Not an advisory lock, which any login could hold.
    lock table public.revocations in share row exclusive mode;
    delete from public.revocations where expires_at < now();
    insert into public.revocations (kind, value, issued_before, reason, noted_by, noted_at, expires_at)
    values (of_kind, of_value, before, why, session_user, now(), now() + lives)
    returning position into noted;
    perform pg_notify('revocations', '');
    return noted;
end
$$;

-- The service hands on what is ordered at its internal listener, with a login for that alone, and says for whom. No other login
-- is believed.
create or replace function note_operator_act(tenant uuid, what text, to_object text, why text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    whose uuid := coalesce(tenant, '00000000-0000-0000-0000-000000000000');
    before text := coalesce(current_setting('app.tenant_id', true), '');
    for_whom text := case when pg_has_role(session_user, 'app_incidents', 'member')
                          then coalesce(current_setting('app.on_behalf_of', true), '') else '' end;
begin
    perform set_config('app.tenant_id', whose::text, true);
    perform public.write_audit_event(
        row (whose, gen_random_uuid(), now(), 'operator:' || session_user, for_whom, what, left(to_object, 300), '', why)
        ::public.audit_events);
    perform set_config('app.tenant_id', before, true);
end
$$;

revoke all on function note_measure(text, text, integer, integer, text) from public;
grant execute on function
    note_measure(text, text, integer, integer, text), note_operator_act(uuid, text, text, text),
    note_revocation(text, text, timestamptz, text), note_tenant_quota(uuid, text, integer, timestamptz, text)
    to app_operator, app_incidents;
grant select on measures to app_authn, app_operator;

grant usage on schema public to app_incidents;
grant select on _sqlx_migrations to app_incidents;
