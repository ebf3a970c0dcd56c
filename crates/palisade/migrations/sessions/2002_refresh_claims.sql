-- A refresh claims the refresh token that it read (control AUTHN-15).
--
-- A renewal for an operation keeps the generation of the cookie. A request that had read the session
-- before it could claim the same generation, and send the issuer a refresh token that was used.
set local lock_timeout = '5s';

drop function palisade.claim_refresh(uuid, uuid, integer);

-- Claims the refresh of a session that still has this refresh token: one request of all replicas has
-- it, for as long as an answer of the issuer may take. Returns the end of the claim; null if another
-- request has it, or has had it.
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

revoke all on function palisade.claim_refresh(uuid, uuid, bytea) from public;
grant execute on function palisade.claim_refresh(uuid, uuid, bytea) to app_authn;
