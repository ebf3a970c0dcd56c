-- A retry gets the stored response as it was: status, body and Location (control INPUT-10).
set local lock_timeout = '5s';

-- With a default, for replicas of the version before, which store 201 only.
alter table palisade.idempotency_keys
    add column status smallint not null default 201 check (status between 200 and 299);
comment on column palisade.idempotency_keys.subject is
    'of the caller; for an API key, the subject of its creator';
comment on column palisade.idempotency_keys.client is
    'OAuth client of the caller; api-key: for all API keys of one creator';

-- Returns the status too, so its result has another type.
drop function palisade.claim_key(uuid, text, text, text, text, timestamptz);
create function palisade.claim_key(
    tenant uuid, for_subject text, for_client text, for_operation text, wanted_key text, at_time timestamptz)
    returns table (claimed boolean, fingerprint bytea, status smallint, body text, location text)
    language plpgsql volatile
as $$
begin
    claimed := pg_try_advisory_xact_lock(
        hashtextextended(concat_ws(e'\x1f', tenant, for_subject, for_client, for_operation, wanted_key), 0));
    if not claimed then
        return next;
        return;
    end if;
    return query
    select true, k.fingerprint, k.status, k.body, k.location
    from (select 1) as always
    left join palisade.stored_response(tenant, for_subject, for_client, for_operation, wanted_key, at_time) k on true;
end
$$;

revoke all on function palisade.claim_key(uuid, text, text, text, text, timestamptz) from public;
grant execute on function palisade.claim_key(uuid, text, text, text, text, timestamptz) to app_writer;
