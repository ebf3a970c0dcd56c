-- What is known of whoever makes API keys (control AUTHN-12): what they may do now, and by which token a key was made.

-- What people may do, as their newest token says, and when that was issued: the keys they made can do no more. Everybody's
-- who was seen lately, so that an older token, with roles that were taken away, makes no key with them.
create table roles_seen (
    tenant_id uuid not null,
    subject text not null check (length(subject) between 1 and 255),
    roles text[] not null,
    as_of timestamptz not null,
    -- Whether they ever made a key: then they are not forgotten.
    makes_keys boolean not null default false,
    primary key (tenant_id, subject)
);
create index roles_seen_by_time on roles_seen (tenant_id, as_of) where not makes_keys;
alter table roles_seen enable row level security;
alter table roles_seen force row level security;
create policy tenant_isolation on roles_seen
    using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());

-- One row for each maker, in place of what each key repeated.
alter table api_keys no force row level security;
alter table roles_seen no force row level security;
insert into roles_seen (tenant_id, subject, roles, as_of, makes_keys)
select distinct on (tenant_id, created_by) tenant_id, created_by, creator_roles, creator_roles_as_of, true
from api_keys order by tenant_id, created_by, creator_roles_as_of desc, cardinality(creator_roles);
drop trigger api_key_changed on api_keys;
drop function read_api_key(uuid, uuid);
drop function note_creator_roles(uuid, text, text[], timestamptz);
alter table api_keys
    drop column creator_roles,
    drop column creator_roles_as_of,
    -- The `jti` of the token by which it was made, if that had one: a revocation of the token revokes the key.
    add column authorized_by text check (length(authorized_by) between 1 and 255),
    add foreign key (tenant_id, created_by) references roles_seen (tenant_id, subject);
alter table roles_seen force row level security;
alter table api_keys force row level security;

-- Of ended keys too: by it the foreign key is checked when somebody is forgotten.
drop index api_keys_by_creator;
create index api_keys_by_creator on api_keys (tenant_id, created_by);

create trigger api_key_changed after update on api_keys
    for each row when ((old.expires_at, old.revoked_at) is distinct from (new.expires_at, new.revoked_at))
    execute function api_key_changed();

-- maker: what is remembered of the API keys that somebody made is out of date.
alter table revocations drop constraint revocations_kind_check;
alter table revocations add constraint revocations_kind_check
    check (kind in ('token', 'subject', 'sessions', 'client', 'tenant', 'everything', 'key', 'maker'));
create index revocations_by_end on revocations (expires_at);

create or replace function add_revocation(of_kind text, of_value text, before timestamptz, why text) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    noted bigint;
    -- How long what it concerns can live: a sign-in a day (the most that max_token_lifetime_seconds allows), an API
    -- key a year, and so what made one; what is remembered of a key, minutes. The rest is for clocks that differ.
    lives interval := case when of_kind = 'sessions' then interval '25 hours'
                           when of_kind in ('key', 'maker') then interval '1 hour'
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

-- A change of roles and the making of a key wait for each other, so that one of the two sees the other; and so do two
-- that make keys for one person. Somebody has 100 live keys at most, and 200 while old ones are replaced: each is a hash
-- to check, and what a leaver leaves behind.
create function api_key_made() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    live bigint;
    replaces_one boolean;
begin
    update public.roles_seen s set makes_keys = true where s.tenant_id = new.tenant_id and s.subject = new.created_by;
    select count(*) into live from public.api_keys k
    where k.tenant_id = new.tenant_id and k.created_by = new.created_by
      and k.revoked_at is null and k.expires_at > new.created_at;
    -- The second of them that replaces one key is a further one, and so is what replaces somebody else's.
    replaces_one := exists (select from public.api_keys k
                            where k.tenant_id = new.tenant_id and k.id = new.replaces and k.created_by = new.created_by)
                    and not exists (select from public.api_keys k
                                    where k.tenant_id = new.tenant_id and k.replaces = new.replaces
                                      and k.created_by = new.created_by
                                      and k.revoked_at is null and k.expires_at > new.created_at);
    if live >= (case when replaces_one then 200 else 100 end) then
        raise exception 'too many live API keys' using errcode = 'check_violation', constraint = 'live_api_keys';
    end if;
    return new;
end
$$;
create trigger api_key_made before insert on api_keys for each row execute function api_key_made();

-- One notice, however many keys somebody made; and none if they made none.
create function roles_changed() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from public.api_keys k where k.tenant_id = new.tenant_id and k.created_by = new.subject
                                               and k.revoked_at is null and k.expires_at > now()) then
        perform public.add_revocation('maker', new.subject, now(), 'changed');
    end if;
    return null;
end
$$;
create trigger roles_changed after update on roles_seen
    for each row when (old.roles is distinct from new.roles) execute function roles_changed();

create function read_api_key(tenant uuid, wanted uuid) returns table (
    name text, secret_hash text, scopes text[], created_by text, creator_roles text[], replaces uuid,
    authorized_at timestamptz, authorized_by text, created_at timestamptz, expires_at timestamptz,
    revoked_at timestamptz, last_used_at timestamptz)
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    return query
        select k.name, k.secret_hash, k.scopes, k.created_by, r.roles, k.replaces, k.authorized_at, k.authorized_by,
               k.created_at, k.expires_at, k.revoked_at, k.last_used_at
        from api_keys k join roles_seen r on r.tenant_id = k.tenant_id and r.subject = k.created_by
        where k.tenant_id = tenant and k.id = wanted;
end
$$;

-- What somebody may do, as a token says that was issued at a time. An older one than the newest that was seen changes
-- nothing, and of two of the same second what both say counts. Whoever made no key, and has no token any more, is
-- forgotten on the way, a few at a time.
create function note_roles(tenant uuid, who text, their_roles text[], at_time timestamptz) returns void
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    if exists (select from roles_seen s
               where s.tenant_id = tenant and s.subject = who
                 and (s.as_of > at_time or s.as_of = at_time and s.roles <@ their_roles)) then
        return;
    end if;
    insert into roles_seen as s (tenant_id, subject, roles, as_of) values (tenant, who, their_roles, at_time)
    on conflict (tenant_id, subject) do update
    set roles = case when s.as_of < at_time then their_roles
                     else array(select unnest(s.roles) intersect select unnest(their_roles) order by 1) end,
        as_of = at_time
    where s.as_of <= at_time;
    delete from roles_seen s
    where s.tenant_id = tenant and s.subject = any (array(
        select e.subject from roles_seen e
        where e.tenant_id = tenant and e.as_of < now() - interval '3 days' and not e.makes_keys
        order by e.as_of limit 20 for update skip locked));
end
$$;

-- When keys were used last. A later time is kept. In one order, so that two replicas do not wait for each other.
create or replace function note_key_uses(tenant uuid, keys uuid[], times timestamptz[]) returns void
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    perform from api_keys k where k.tenant_id = tenant and k.id = any (keys) order by k.id for no key update;
    update api_keys k set last_used_at = u.used_at
    from unnest(keys, times) as u (id, used_at)
    where k.tenant_id = tenant and k.id = u.id and (k.last_used_at is null or k.last_used_at < u.used_at);
end
$$;

revoke all on function
    api_key_made(), roles_changed(), read_api_key(uuid, uuid), note_roles(uuid, text, text[], timestamptz)
    from public;
grant execute on function read_api_key(uuid, uuid), note_roles(uuid, text, text[], timestamptz) to app_authn;
grant select, insert, update (roles, as_of), delete on roles_seen to app_authn;
grant insert (authorized_by) on api_keys to app_writer;
