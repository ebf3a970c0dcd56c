-- API keys, and what was revoked (controls AUTHN-11 and AUTHN-12).
--
-- The login app_authn looks up credentials before there is a principal, so nothing else is open to it; and what
-- serves operations can write a secret's hash but not read one. app_operator revokes, for every tenant.
grant usage on schema public to app_authn, app_operator;
grant select on _sqlx_migrations to app_authn;

create table api_keys (
    tenant_id uuid not null,
    id uuid not null,
    name text not null check (length(name) between 1 and 200),
    -- argon2id, with a pepper that the database does not know.
    secret_hash text not null check (secret_hash like '$argon2id$v=19$m=19456,t=2,p=1$%'),
    scopes text[] not null check (cardinality(scopes) between 1 and 64),
    created_by text not null check (length(created_by) between 1 and 255),
    -- What its creator may do, as their newest token says, and when that was issued: a key can do no more.
    creator_roles text[] not null,
    creator_roles_as_of timestamptz not null,
    -- When the credential was issued by which it was made. Whatever revokes that revokes this.
    authorized_at timestamptz not null,
    -- The key it was made to take the place of.
    replaces uuid,
    created_at timestamptz not null,
    expires_at timestamptz not null check (expires_at >= created_at),
    revoked_at timestamptz,
    last_used_at timestamptz,
    primary key (tenant_id, id),
    foreign key (tenant_id, replaces) references api_keys (tenant_id, id)
);
create index api_keys_by_time on api_keys (tenant_id, created_at desc, id desc);
create index api_keys_by_creator on api_keys (tenant_id, created_by) where revoked_at is null;

alter table api_keys enable row level security;
alter table api_keys force row level security;
create policy tenant_isolation on api_keys
    using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());

-- Revoking is final and an end only comes nearer, whatever the code does.
create function api_key_only_ends() returns trigger
    language plpgsql
as $$
begin
    if new.expires_at > old.expires_at or old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at then
        raise exception 'an API key does not come back' using errcode = 'check_violation';
    end if;
    return new;
end
$$;
create trigger api_key_only_ends before update on api_keys
    for each row execute function api_key_only_ends();

-- What is no longer accepted although it has not ended. It belongs to no tenant: operators write it, every
-- replica reads all of it, and no operation reaches it.
create table revocations (
    -- In the order in which they were committed: see note_revocation.
    position bigint primary key generated always as identity,
    -- key: what is remembered of an API key is out of date.
    kind text not null check (kind in ('token', 'subject', 'client', 'tenant', 'everything', 'key')),
    value text not null check (length(value) <= 255 and (value = '') = (kind = 'everything')),
    -- Credentials issued later are accepted.
    issued_before timestamptz not null check (isfinite(issued_before)),
    reason text not null check (length(reason) between 1 and 500),
    -- The database login.
    noted_by text not null,
    noted_at timestamptz not null,
    -- When all it concerns has ended by itself.
    expires_at timestamptz not null check (isfinite(expires_at))
);

-- Notes a revocation and tells every replica. One at a time: a position is given and committed before the next is
-- given, so a replica that asks for what comes after a position misses nothing.
create function note_revocation(of_kind text, of_value text, before timestamptz, why text) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    noted bigint;
    -- How long what it concerns can live: a token a day (the most that max_token_lifetime_seconds allows), an API
    -- key a year; and what is remembered of a key, minutes. The rest is for clocks that differ.
    lives interval := case of_kind when 'token' then interval '25 hours' when 'key' then interval '1 hour'
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

-- Every replica forgets what it remembers of a key that changed, and looks again.
create function api_key_changed() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform public.note_revocation('key', new.id::text, now(), 'changed');
    return null;
end
$$;
create trigger api_key_changed after update on api_keys
    for each row when ((old.expires_at, old.revoked_at, old.creator_roles)
                       is distinct from (new.expires_at, new.revoked_at, new.creator_roles))
    execute function api_key_changed();

create function read_api_key(tenant uuid, wanted uuid) returns setof api_keys
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    return query select * from api_keys k where k.tenant_id = tenant and k.id = wanted;
end
$$;

-- When keys were used last. A later time is kept.
create function note_key_uses(tenant uuid, keys uuid[], times timestamptz[]) returns void
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    update api_keys k set last_used_at = u.used_at
    from unnest(keys, times) as u (id, used_at)
    where k.tenant_id = tenant and k.id = u.id and (k.last_used_at is null or k.last_used_at < u.used_at);
end
$$;

-- What somebody may do, as a token says that was issued at a time: their keys can do no more. An older token than
-- the newest that was seen changes nothing.
create function note_creator_roles(tenant uuid, creator text, roles text[], as_of timestamptz) returns void
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    update api_keys k set creator_roles = roles, creator_roles_as_of = as_of
    where k.tenant_id = tenant and k.created_by = creator and k.revoked_at is null
      and (k.creator_roles_as_of < as_of or k.creator_roles_as_of = as_of and k.creator_roles <> roles);
end
$$;

revoke all on function
    api_key_only_ends(), note_revocation(text, text, timestamptz, text), api_key_changed(), read_api_key(uuid, uuid),
    note_key_uses(uuid, uuid[], timestamptz[]), note_creator_roles(uuid, text, text[], timestamptz)
    from public;
grant execute on function
    current_tenant(), enter_tenant(uuid), read_api_key(uuid, uuid), note_key_uses(uuid, uuid[], timestamptz[]),
    note_creator_roles(uuid, text, text[], timestamptz)
    to app_authn;
grant execute on function note_revocation(text, text, timestamptz, text) to app_operator;

grant select on api_keys to app_authn;
grant update (last_used_at, creator_roles, creator_roles_as_of) on api_keys to app_authn;
grant select on revocations to app_authn, app_operator;

grant select (tenant_id, id, name, scopes, created_by, replaces, authorized_at, created_at, expires_at, revoked_at,
              last_used_at)
    on api_keys to app_reader, app_writer;
grant insert (tenant_id, id, name, secret_hash, scopes, created_by, creator_roles, creator_roles_as_of, authorized_at,
              replaces, created_at, expires_at)
    on api_keys to app_writer;
grant update (expires_at, revoked_at) on api_keys to app_writer;
