-- An index key that some customer has is not forgotten, whoever writes meanwhile; and what has one that was forgotten is not
-- written (control CRYPTO-06). A replica that still goes by it would store what the others cannot find.

alter table customers
    add column email_index_key integer generated always as (get_byte(email_index, 0) * 256 + get_byte(email_index, 1)) stored,
    add column tax_id_index_key integer
        generated always as (get_byte(tax_id_index, 0) * 256 + get_byte(tax_id_index, 1)) stored;
create index customers_by_email_index_key on customers (email_index_key);
create index customers_by_tax_id_index_key on customers (tax_id_index_key);
-- Row-level security is for whoever asks; this asks about all tenants.
alter table customers no force row level security;
alter table customers
    add constraint email_index_key_is_there foreign key (email_index_key) references index_keys (version),
    add constraint tax_id_index_key_is_there foreign key (tax_id_index_key) references index_keys (version);
alter table customers force row level security;

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
