-- Quotas that operators gave a tenant instead of those of the settings (control RATE-03), for a while.
-- They belong to operators: every replica reads all of them, and no operation reaches them.
create table tenant_quotas (
    of_tenant uuid not null,
    -- tenant: of all its callers together. The others: of each of its callers.
    quota text not null check (quota in ('tenant', 'read', 'write', 'sensitive')),
    per_minute integer not null check (per_minute between 1 and 1000000),
    reason text not null check (length(reason) between 1 and 500),
    -- The database login.
    noted_by text not null,
    noted_at timestamptz not null,
    expires_at timestamptz not null check (isfinite(expires_at)),
    primary key (of_tenant, quota)
);

create index tenant_quotas_by_end on tenant_quotas (expires_at);

create function note_tenant_quota(tenant uuid, of_quota text, calls integer, until timestamptz, why text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    delete from public.tenant_quotas where expires_at < now();
    insert into public.tenant_quotas as q (of_tenant, quota, per_minute, reason, noted_by, noted_at, expires_at)
    values (tenant, of_quota, calls, why, session_user, now(), until)
    on conflict (of_tenant, quota) do update
    set per_minute = calls, reason = why, noted_by = session_user, noted_at = now(), expires_at = until;
end
$$;

revoke all on function note_tenant_quota(uuid, text, integer, timestamptz, text) from public;
grant execute on function note_tenant_quota(uuid, text, integer, timestamptz, text) to app_operator;
grant select on tenant_quotas to app_authn, app_operator;
