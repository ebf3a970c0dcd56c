-- What is accepted once, by one replica: proofs of tokens that are bound to a key (control AUTHN-19),
-- and the sign-ins and logout tokens of browser sessions (AUTHN-14, AUTHN-16).
set local lock_timeout = '5s';

-- SHA-256 of each, kept until nothing would accept it any more.
create table palisade.used_once (
    digest bytea primary key check (length(digest) = 32),
    expires_at timestamptz not null check (isfinite(expires_at))
);
create index used_once_by_end on palisade.used_once (expires_at);

-- Whether this is the first use. Each use removes some expired rows, with a margin for the clocks of
-- replicas.
create function palisade.use_once(wanted bytea, until timestamptz) returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    delete from palisade.used_once u where u.digest = any (array(
        select e.digest from palisade.used_once e where e.expires_at < now() - interval '5 minutes'
        order by e.expires_at limit 20 for update skip locked));
    insert into palisade.used_once (digest, expires_at) values (wanted, until) on conflict do nothing;
    return found;
end
$$;
revoke all on function palisade.use_once(bytea, timestamptz) from public;
grant execute on function palisade.use_once(bytea, timestamptz) to app_authn;
