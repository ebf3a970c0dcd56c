-- The audit trail: who changed what, written in the transaction of the change (control LOG-05).
--
-- audit_events has the events of each tenant. audit_journal has a digest of each event, in the
-- order of writing. audit_seals chains the journal: a seal is a digest of a stretch of the journal
-- and of the seal before it. The service logs each seal, so even the owner of the database cannot
-- change an event and make the three tables agree with the log again. `audit verify` recomputes all
-- digests.
--
-- Only the owner has more than select on these tables. Rows are added by the functions below.
set local lock_timeout = '5s';

create table palisade.audit_events (
    tenant_id uuid not null,
    id uuid not null,
    at timestamptz not null,
    -- Subject and client of the credential. Of an operator: `operator:` and the login, and the
    -- service that the operator used, if any.
    subject text not null check (length(subject) between 1 and 255),
    client text not null check (length(client) <= 255),
    -- The audit event of the route matrix, and the changed object.
    action text not null check (length(action) between 1 and 64),
    object text not null check (length(object) <= 300),
    -- The request, as log lines name it; empty for an act of an operator.
    trace_id text not null check (trace_id ~ '^([0-9a-f]{32})?$'),
    -- The operator's reason; empty for a request.
    reason text not null check (length(reason) <= 500),
    primary key (tenant_id, id)
);
create index audit_events_by_time on palisade.audit_events (tenant_id, at desc, id desc);
create index audit_events_by_object on palisade.audit_events (tenant_id, object, at desc, id desc);
select palisade.isolate_tenants('palisade.audit_events');

create table palisade.audit_journal (
    -- Positions of transactions that were rolled back are missing.
    position bigint primary key generated always as identity,
    of_tenant uuid not null,
    event uuid not null,
    digest bytea not null check (length(digest) = 32)
);

create table palisade.audit_seals (
    number bigint primary key check (number > 0),
    -- The last position of the stretch, which begins after the one of the seal before.
    upto bigint not null,
    events bigint not null check (events > 0),
    digest bytea not null check (length(digest) = 32),
    -- 8 bytes of the position and 8 of the digest of each line. They prove nothing: they show which
    -- line was changed.
    lines bytea not null check (length(lines) = events * 16)
);

-- The last assigned position, and the id of a transaction that began later. When all older
-- transactions have ended, the journal can be sealed up to that position.
create table palisade.audit_horizon (
    one boolean primary key default true check (one),
    upto bigint not null,
    recorded_by xid8 not null,
    recorded_at timestamptz not null
);
insert into palisade.audit_horizon (upto, recorded_by, recorded_at) values (0, '0', now());

-- Stops accidents of every login. The owner can drop the triggers: the logged seals show that.
create function palisade.reject_audit_change() returns trigger
    language plpgsql
as $$
begin
    raise exception 'the audit trail is append-only' using errcode = 'insufficient_privilege';
end
$$;
create trigger append_only before update or delete or truncate on palisade.audit_events
    for each statement execute function palisade.reject_audit_change();
create trigger append_only before update or delete or truncate on palisade.audit_journal
    for each statement execute function palisade.reject_audit_change();
create trigger append_only before update or delete or truncate on palisade.audit_seals
    for each statement execute function palisade.reject_audit_change();

-- The digest of an event: SHA-256 of its fields. Each has its length in bytes and a colon before
-- it, so no two events have the same text. The time is in microseconds since 1970.
create function palisade.audit_digest(e palisade.audit_events) returns bytea
    language sql stable set search_path = pg_catalog, pg_temp
as $$
    select sha256(convert_to(
        string_agg(octet_length(convert_to(field, 'UTF8')) || ':' || field, '' order by no), 'UTF8'))
    from unnest(array[e.tenant_id::text, e.id::text, (extract(epoch from e.at) * 1000000)::bigint::text, e.subject,
                      e.client, e.action, e.object, e.trace_id, e.reason]) with ordinality as f (field, no)
$$;

-- Inserts an event and its line of the journal. Row-level security refuses another tenant than the
-- current one.
create function palisade.insert_audit_event(e palisade.audit_events) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into palisade.audit_events values (e.*);
    insert into palisade.audit_journal (of_tenant, event, digest)
    values (e.tenant_id, e.id, palisade.audit_digest(e));
end
$$;

-- Records the change of a request, at the time of its transaction.
create function palisade.record_audit_event(
    tenant uuid, event uuid, by_subject text, by_client text, action text, object text, trace_id text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if by_subject ilike 'operator:%' or by_client = '' or tenant = '00000000-0000-0000-0000-000000000000' then
        raise exception 'a request cannot record an act of an operator' using errcode = 'insufficient_privilege';
    end if;
    perform palisade.insert_audit_event(
        row (tenant, event, now(), by_subject, by_client, action, object, trace_id, '')::palisade.audit_events);
end
$$;

-- Records an act of an operator on a tenant. An act on all tenants has the nil UUID as its tenant.
--
-- The internal listener of the service connects with the login app_incidents, and names the client
-- that it acts for in app.on_behalf_of. That setting of any other login is ignored.
create function palisade.record_operator_act(tenant uuid, action text, object text, reason text) returns void
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
             '', reason)::palisade.audit_events);
    perform set_config('app.tenant_id', tenant_before, true);
end
$$;

-- Seals the next stretch of the journal. Returns the seal, or nothing if there is nothing to seal.
--
-- Positions are assigned before their transactions commit. So a stretch is sealed only when each
-- transaction that may have a position of it has ended. No call waits for that: a call records the
-- last assigned position and then a transaction (its own). A later call seals up to there, once no
-- older transaction is running.
create function palisade.seal_audit_journal()
    returns table (number bigint, upto bigint, events bigint, digest bytea)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    horizon palisade.audit_horizon;
    last palisade.audit_seals;
    stretch_upto bigint;
    assigned bigint;
    own_transaction xid8;
begin
    if pg_current_xact_id_if_assigned() is not null then
        raise exception 'to be called in a transaction of its own';
    end if;
    select * into horizon from palisade.audit_horizon;
    if horizon.recorded_by > pg_snapshot_xmax(pg_current_snapshot()) then
        -- Recorded by the cluster that this one was restored from: its transactions have ended.
        horizon.recorded_by := '0';
    end if;
    if horizon.recorded_by > pg_snapshot_xmin(pg_current_snapshot()) then
        if horizon.recorded_at < now() - interval '1 minute' then
            raise exception 'a transaction that began before % keeps the audit trail from being sealed',
                horizon.recorded_at;
        end if;
        return;
    end if;
    select * into last from palisade.audit_seals s order by s.number desc limit 1;
    -- At most so many at once.
    select max(j.position) into stretch_upto
    from (select j.position from palisade.audit_journal j
          where j.position > coalesce(last.upto, 0) and j.position <= horizon.upto
          order by j.position limit 10000) as j;
    -- First the position, then the transaction: each owner of an assigned position began before it.
    select case when is_called then last_value else 0 end into assigned from palisade.audit_journal_position_seq;
    own_transaction := pg_current_xact_id();
    return query
    insert into palisade.audit_seals (number, upto, events, digest, lines)
    select coalesce(last.number, 0) + 1, stretch_upto, count(*),
           sha256(coalesce(last.digest, '') || int8send(coalesce(last.number, 0) + 1) || int8send(stretch_upto)
                  || string_agg(int8send(j.position) || uuid_send(j.of_tenant) || uuid_send(j.event) || j.digest, ''
                                order by j.position)),
           string_agg(int8send(j.position) || substr(j.digest, 1, 8), '' order by j.position)
    from palisade.audit_journal j
    where j.position > coalesce(last.upto, 0) and j.position <= stretch_upto
    having count(*) > 0
    -- Another replica was faster.
    on conflict do nothing
    returning number, upto, events, digest;
    if exists (select from palisade.audit_journal j where j.position > stretch_upto and j.position <= horizon.upto) then
        -- There is more up to the same horizon.
        return;
    end if;
    update palisade.audit_horizon set upto = assigned, recorded_by = own_transaction, recorded_at = now();
end
$$;

revoke all on all functions in schema palisade from public;
grant execute on function
    palisade.record_audit_event(uuid, uuid, text, text, text, text, text), palisade.seal_audit_journal()
    to app_writer;
grant execute on function palisade.record_operator_act(uuid, text, text, text) to app_operator, app_incidents;
grant select on palisade.audit_events to app_reader, app_auditor;
grant select on palisade.audit_journal, palisade.audit_seals to app_auditor;
