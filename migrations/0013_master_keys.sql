-- Which master key is meant by a version of a keyset: who has another one under it does not start, before anything is wrapped by
-- the wrong one and lost (control CRYPTO-05).
create table master_keys (
    -- Such as keyset:2.
    name text primary key check (length(name) between 1 and 100),
    -- What the key makes of a text that is always the same, and opens again.
    check_value bytea not null check (length(check_value) between 29 and 4096)
);
grant select, insert on master_keys to app_keys;
grant select, delete on master_keys to app_operator;
