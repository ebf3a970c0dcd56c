-- The audit trail: who changed what, written in the transaction of the change (control LOG-05).
--
-- Three tables. Events are the tenants' own. The journal has a digest of each event, in the order in which they were
-- written. Seals chain the journal: each is a digest of a stretch of it and of the seal before. The service writes
-- each seal into its log, so that even somebody who owns the database cannot make the three agree with the log again.
-- `audit verify` computes all of it anew.
--
-- No login but the owner's has more than `select` on any of them: rows come to be by the functions below.

create table audit_events (
    tenant_id uuid not null,
    id uuid not null,
    at timestamptz not null,
    -- Who: the subject and the client of the credential. Of an act of an operator, `operator:` and the login, and no client.
    subject text not null check (length(subject) between 1 and 255),
    client text not null check (length(client) <= 255),
    -- What was done, by its name in the route matrix, and to which object.
    action text not null check (length(action) between 1 and 64),
    object text not null check (length(object) <= 300),
    -- In which request, which log lines name too; empty for an act of an operator.
    trace_id text not null check (trace_id ~ '^([0-9a-f]{32})?$'),
    -- What the operator gave as one; empty for a request.
    reason text not null check (length(reason) <= 500),
    primary key (tenant_id, id)
);
create index audit_events_by_time on audit_events (tenant_id, at desc, id desc);
create index audit_events_by_object on audit_events (tenant_id, object, at desc, id desc);

alter table audit_events enable row level security;
alter table audit_events force row level security;
create policy tenant_isolation on audit_events
    using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());

create table audit_journal (
    -- Gaps are of transactions that were rolled back.
    position bigint primary key generated always as identity,
    of_tenant uuid not null,
    event uuid not null,
    digest bytea not null check (length(digest) = 32)
);

create table audit_seals (
    number bigint primary key check (number > 0),
    -- The journal up to here, from where the seal before it ends.
    upto bigint not null,
    events bigint not null check (events > 0),
    digest bytea not null check (length(digest) = 32),
    -- Of each line 8 bytes of its position and 8 of its digest. They prove nothing: they tell which line was changed.
    lines bytea not null check (length(lines) = events * 16)
);

-- Up to where the journal can be sealed next, and the transaction before which all who can have written there began.
create table audit_horizon (
    one boolean primary key default true check (one),
    upto bigint not null,
    noted_by xid8 not null,
    noted_at timestamptz not null
);
insert into audit_horizon (upto, noted_by, noted_at) values (0, '0', now());

create function audit_is_append_only() returns trigger
    language plpgsql
as $$
begin
    raise exception 'the audit trail is append-only' using errcode = 'insufficient_privilege';
end
$$;
-- Of the owner, who could drop these: that is what the seals in the log are for.
create trigger append_only before update or delete or truncate on audit_events
    for each statement execute function audit_is_append_only();
create trigger append_only before update or delete or truncate on audit_journal
    for each statement execute function audit_is_append_only();
create trigger append_only before update or delete or truncate on audit_seals
    for each statement execute function audit_is_append_only();

-- The digest of an event: SHA-256 of its fields, each with its length in bytes and a colon before it, so that no two
-- events have one text. The time is in microseconds since 1970.
create function audit_digest(e audit_events) returns bytea
    language sql stable set search_path = pg_catalog, pg_temp
as $$
    select sha256(convert_to(string_agg(octet_length(convert_to(field, 'UTF8')) || ':' || field, '' order by no), 'UTF8'))
    from unnest(array[e.tenant_id::text, e.id::text, (extract(epoch from e.at) * 1000000)::bigint::text, e.subject,
                      e.client, e.action, e.object, e.trace_id, e.reason]) with ordinality as f (field, no)
$$;

-- Writes an event of the tenant that the transaction is confined to, and its line of the journal.
create function write_audit_event(e audit_events) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into public.audit_events values (e.*);
    insert into public.audit_journal (of_tenant, event, digest) values (e.tenant_id, e.id, public.audit_digest(e));
end
$$;

-- What a request did. The time is the transaction's.
create function note_audit_event(
    tenant uuid, event uuid, by_subject text, by_client text, what text, to_object text, in_trace text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if by_subject ilike 'operator:%' or by_client = '' or tenant = '00000000-0000-0000-0000-000000000000' then
        raise exception 'a request is no act of an operator' using errcode = 'insufficient_privilege';
    end if;
    perform public.write_audit_event(
        row (tenant, event, now(), by_subject, by_client, what, to_object, in_trace, '')::public.audit_events);
end
$$;

-- What an operator did to a tenant, or to all of them: then the event is nobody's, of the tenant whose UUID is nil.
create function note_operator_act(tenant uuid, what text, to_object text, why text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    whose uuid := coalesce(tenant, '00000000-0000-0000-0000-000000000000');
    before text := coalesce(current_setting('app.tenant_id', true), '');
begin
    perform set_config('app.tenant_id', whose::text, true);
    perform public.write_audit_event(
        row (whose, gen_random_uuid(), now(), 'operator:' || session_user, '', what, left(to_object, 300), '', why)
        ::public.audit_events);
    perform set_config('app.tenant_id', before, true);
end
$$;

-- Seals what can be: gives the seal that was made, if there was anything to seal.
--
-- Positions are given before their transactions commit, so a stretch is sealed only when every transaction that can
-- have got a position of it is over. Nobody waits for that, and no writer for a seal: a call notes how far positions
-- have been given, and a transaction (its own) that began after all that were given them; a later call, when nothing
-- older than that is at work any more, seals up to there.
create function seal_audit_journal()
    returns table (number bigint, upto bigint, events bigint, digest bytea)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    horizon public.audit_horizon;
    last public.audit_seals;
    stretch_upto bigint;
    given bigint;
    me xid8;
begin
    if pg_current_xact_id_if_assigned() is not null then
        raise exception 'to be called in a transaction of its own';
    end if;
    select * into horizon from public.audit_horizon;
    if horizon.noted_by > pg_snapshot_xmax(pg_current_snapshot()) then
        -- Of another cluster, from which this was restored: all it speaks of is over.
        horizon.noted_by := '0';
    end if;
    if horizon.noted_by > pg_snapshot_xmin(pg_current_snapshot()) then
        if horizon.noted_at < now() - interval '1 minute' then
            raise exception 'a transaction that began before % keeps the audit trail from being sealed', horizon.noted_at;
        end if;
        return;
    end if;
    select * into last from public.audit_seals s order by s.number desc limit 1;
    -- No more than that at once, however much there is.
    select max(j.position) into stretch_upto
    from (select j.position from public.audit_journal j
          where j.position > coalesce(last.upto, 0) and j.position <= horizon.upto
          order by j.position limit 10000) as j;
    -- First how far, then the transaction: whoever was given a position began before it.
    select case when is_called then last_value else 0 end into given from public.audit_journal_position_seq;
    me := pg_current_xact_id();
    return query
    insert into public.audit_seals (number, upto, events, digest, lines)
    select coalesce(last.number, 0) + 1, stretch_upto, count(*),
           sha256(coalesce(last.digest, '') || int8send(coalesce(last.number, 0) + 1) || int8send(stretch_upto)
                  || string_agg(int8send(j.position) || uuid_send(j.of_tenant) || uuid_send(j.event) || j.digest, ''
                                order by j.position)),
           string_agg(int8send(j.position) || substr(j.digest, 1, 8), '' order by j.position)
    from public.audit_journal j
    where j.position > coalesce(last.upto, 0) and j.position <= stretch_upto
    having count(*) > 0
    -- Another replica was faster.
    on conflict do nothing
    returning number, upto, events, digest;
    if exists (select from public.audit_journal j where j.position > stretch_upto and j.position <= horizon.upto) then
        -- There is more up to the same horizon.
        return;
    end if;
    update public.audit_horizon set upto = given, noted_by = me, noted_at = now();
end
$$;

-- Acts of operators are in the trail, whoever calls these.
alter function note_revocation(text, text, timestamptz, text) rename to add_revocation;
create function note_revocation(of_kind text, of_value text, before timestamptz, why text) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform public.note_operator_act(
        case of_kind when 'tenant' then of_value::uuid end, 'credentials_revoked',
        concat_ws(' ', of_kind, nullif(of_value, ''), 'before', before), why);
    return public.add_revocation(of_kind, of_value, before, why);
end
$$;
-- What changes an API key is in the trail already.
create or replace function api_key_changed() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform public.add_revocation('key', new.id::text, now(), 'changed');
    return null;
end
$$;

alter function note_tenant_quota(uuid, text, integer, timestamptz, text) rename to put_tenant_quota;
create function note_tenant_quota(tenant uuid, of_quota text, calls integer, until timestamptz, why text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform public.note_operator_act(
        tenant, 'quota_set', concat_ws(' ', of_quota, calls, 'per minute until', until), why);
    perform public.put_tenant_quota(tenant, of_quota, calls, until, why);
end
$$;

revoke all on function
    audit_is_append_only(), audit_digest(audit_events), write_audit_event(audit_events),
    note_audit_event(uuid, uuid, text, text, text, text, text), note_operator_act(uuid, text, text, text),
    seal_audit_journal(), note_revocation(text, text, timestamptz, text),
    note_tenant_quota(uuid, text, integer, timestamptz, text)
    from public;
revoke all on function
    add_revocation(text, text, timestamptz, text), put_tenant_quota(uuid, text, integer, timestamptz, text)
    from app_operator;
grant execute on function note_audit_event(uuid, uuid, text, text, text, text, text), seal_audit_journal() to app_writer;
grant execute on function
    note_operator_act(uuid, text, text, text), note_revocation(text, text, timestamptz, text),
    note_tenant_quota(uuid, text, integer, timestamptz, text)
    to app_operator;

grant select on audit_events to app_reader, app_auditor;
grant select on audit_journal, audit_seals to app_auditor;
