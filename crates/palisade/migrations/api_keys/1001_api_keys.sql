-- API keys, and the roles of their creators (control AUTHN-12).
--
-- The login app_authn looks up credentials before there is a principal, so it can do nothing else.
-- The logins of operations can write the hash of a secret, and cannot read one.
set local lock_timeout = '5s';

-- The roles in the newest token of each subject, and when it was issued. They bound all API keys of
-- the subject. Subjects without API keys are recorded too: otherwise an older token could create a
-- key with roles that the subject has lost.
create table palisade.subject_roles (
    tenant_id uuid not null,
    subject text not null check (length(subject) between 1 and 255),
    roles text[] not null,
    as_of timestamptz not null,
    -- Whether the subject ever created an API key. Then the row is not deleted.
    has_api_keys boolean not null default false,
    primary key (tenant_id, subject)
);
create index subject_roles_by_time on palisade.subject_roles (tenant_id, as_of) where not has_api_keys;

create table palisade.api_keys (
    tenant_id uuid not null,
    id uuid not null,
    name text not null check (length(name) between 1 and 200),
    -- argon2id, with a pepper that the database does not have.
    secret_hash text not null check (secret_hash like '$argon2id$v=19$m=19456,t=2,p=1$%'),
    scopes text[] not null check (cardinality(scopes) between 1 and 64),
    created_by text not null check (length(created_by) between 1 and 255),
    -- The credential that created the key: when it was issued, and its `jti`, if it had one. A
    -- revocation of that credential revokes the key.
    authorized_at timestamptz not null,
    authorized_by text check (length(authorized_by) between 1 and 255),
    -- The key that this one replaces.
    replaces uuid,
    created_at timestamptz not null,
    expires_at timestamptz not null check (expires_at >= created_at),
    revoked_at timestamptz,
    last_used_at timestamptz,
    primary key (tenant_id, id),
    foreign key (tenant_id, replaces) references palisade.api_keys (tenant_id, id),
    foreign key (tenant_id, created_by) references palisade.subject_roles (tenant_id, subject)
);
create index api_keys_by_time on palisade.api_keys (tenant_id, created_at desc, id desc);
-- Of ended keys too: the deletion of a subject checks the foreign key by it.
create index api_keys_by_creator on palisade.api_keys (tenant_id, created_by);
select palisade.isolate_tenants('palisade.subject_roles', 'palisade.api_keys');

-- A revocation is final, and the end of a key only comes nearer.
create function palisade.reject_api_key_extension() returns trigger
    language plpgsql
as $$
begin
    if new.expires_at > old.expires_at
       or old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at then
        raise exception 'an API key cannot be extended or restored' using errcode = 'check_violation';
    end if;
    return new;
end
$$;
create trigger reject_api_key_extension before update on palisade.api_keys
    for each row execute function palisade.reject_api_key_extension();

-- Limits the live API keys of a subject: 100, and 200 while old ones are replaced. Each live key
-- costs hashing time, and stays valid after its creator leaves. The update of the subject's row makes the creation of
-- a key and a change of roles wait for each other, and so two creations.
create function palisade.limit_api_keys() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    live bigint;
    is_replacement boolean;
begin
    update palisade.subject_roles s set has_api_keys = true
    where s.tenant_id = new.tenant_id and s.subject = new.created_by;
    select count(*) into live from palisade.api_keys k
    where k.tenant_id = new.tenant_id and k.created_by = new.created_by
      and k.revoked_at is null and k.expires_at > new.created_at;
    -- A second replacement of one key is a further key, and so is one of another subject's key.
    is_replacement := exists (select from palisade.api_keys k
                              where k.tenant_id = new.tenant_id and k.id = new.replaces
                                and k.created_by = new.created_by)
                      and not exists (select from palisade.api_keys k
                                      where k.tenant_id = new.tenant_id and k.replaces = new.replaces
                                        and k.created_by = new.created_by
                                        and k.revoked_at is null and k.expires_at > new.created_at);
    if live >= (case when is_replacement then 200 else 100 end) then
        raise exception 'API key limit reached' using errcode = 'check_violation', constraint = 'api_key_limit';
    end if;
    return new;
end
$$;
create trigger limit_api_keys before insert on palisade.api_keys
    for each row execute function palisade.limit_api_keys();

-- Makes replicas read the API keys of the tenant again. A notification is delivered in commit order
-- and takes no lock before the commit. Its payload is the tenant alone, since every login of the
-- database can listen.
create function palisade.notify_api_key_change() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_notify('revocations', new.tenant_id::text);
    return null;
end
$$;
create trigger notify_api_key_change after update on palisade.api_keys
    for each row when ((old.expires_at, old.revoked_at) is distinct from (new.expires_at, new.revoked_at))
    execute function palisade.notify_api_key_change();
create trigger notify_api_key_change after update on palisade.subject_roles
    for each row when (new.has_api_keys and old.roles is distinct from new.roles)
    execute function palisade.notify_api_key_change();

create function palisade.read_api_key(tenant uuid, wanted uuid) returns table (
    name text, secret_hash text, scopes text[], created_by text, creator_roles text[], replaces uuid,
    authorized_at timestamptz, authorized_by text, created_at timestamptz, expires_at timestamptz,
    revoked_at timestamptz, last_used_at timestamptz)
    language plpgsql volatile
as $$
begin
    perform palisade.enter_tenant(tenant);
    return query
        select k.name, k.secret_hash, k.scopes, k.created_by, s.roles, k.replaces, k.authorized_at, k.authorized_by,
               k.created_at, k.expires_at, k.revoked_at, k.last_used_at
        from palisade.api_keys k
        join palisade.subject_roles s on s.tenant_id = k.tenant_id and s.subject = k.created_by
        where k.tenant_id = tenant and k.id = wanted;
end
$$;

-- Records the last use of API keys. A later time is kept. Locks in one order, so that two replicas
-- do not deadlock.
create function palisade.record_key_uses(tenant uuid, keys uuid[], times timestamptz[]) returns void
    language plpgsql volatile
as $$
begin
    perform palisade.enter_tenant(tenant);
    perform from palisade.api_keys k where k.tenant_id = tenant and k.id = any (keys) order by k.id for no key update;
    update palisade.api_keys k set last_used_at = u.used_at
    from unnest(keys, times) as u (id, used_at)
    where k.tenant_id = tenant and k.id = u.id and (k.last_used_at is null or k.last_used_at < u.used_at);
end
$$;

-- Records the roles in a token of a subject. An older token than the newest one changes nothing. If
-- two tokens have the same second, only roles in both are kept. Subjects without API keys are deleted
-- some days later, a few at a time. It has the owner's rights: the right to delete rows would
-- include the right to lock the table.
create function palisade.record_roles(tenant uuid, of_subject text, new_roles text[], at_time timestamptz)
    returns void
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('app.tenant_id', tenant::text, true);
    if exists (select from palisade.subject_roles s
               where s.tenant_id = tenant and s.subject = of_subject
                 and (s.as_of > at_time or s.as_of = at_time and s.roles <@ new_roles)) then
        return;
    end if;
    insert into palisade.subject_roles as s (tenant_id, subject, roles, as_of)
    values (tenant, of_subject, new_roles, at_time)
    on conflict (tenant_id, subject) do update
    set roles = case when s.as_of < at_time then new_roles
                     else array(select unnest(s.roles) intersect select unnest(new_roles) order by 1) end,
        as_of = at_time
    where s.as_of <= at_time;
    delete from palisade.subject_roles s
    where s.tenant_id = tenant and s.subject = any (array(
        select e.subject from palisade.subject_roles e
        where e.tenant_id = tenant and e.as_of < now() - interval '3 days' and not e.has_api_keys
        order by e.as_of limit 20 for update skip locked));
end
$$;

revoke all on all functions in schema palisade from public;
grant execute on function
    palisade.read_api_key(uuid, uuid), palisade.record_key_uses(uuid, uuid[], timestamptz[]),
    palisade.record_roles(uuid, text, text[], timestamptz)
    to app_authn;
grant select, update (last_used_at) on palisade.api_keys to app_authn;
grant select on palisade.subject_roles to app_authn;
grant select (tenant_id, id, name, scopes, created_by, replaces, authorized_at, created_at, expires_at, revoked_at,
              last_used_at)
    on palisade.api_keys to app_reader, app_writer;
grant insert (tenant_id, id, name, secret_hash, scopes, created_by, authorized_at, authorized_by, replaces, created_at,
              expires_at)
    on palisade.api_keys to app_writer;
grant update (expires_at, revoked_at) on palisade.api_keys to app_writer;
