-- What is known about a customer is sealed by the service (controls CRYPTO-02 to CRYPTO-08): no statement sees it.
--
-- A customer's fields are sealed with the customer's key, that with a data key of the tenant, and that with a master
-- key, which no database holds. docs/keys.md has the picture.

-- No statement can seal, so nothing is converted: who has customers in plain text takes them out first.
alter table customers no force row level security;
do $$
begin
    if exists (select from customers where erased_at is null) then
        raise exception 'customers are stored in plain text, which this version cannot convert'
            using hint = 'Take them out with the version before and add them again, or start afresh (cargo dev --fresh).';
    end if;
end
$$;
alter table customers force row level security;

alter table customers drop constraint erased_is_empty;
drop index customers_by_email;
drop function read_customer(uuid, uuid);
alter table customers
    drop column email, drop column phone, drop column tax_id, drop column bank_account, drop column address;
-- Format 1: 1 byte of format, 12 of nonce, the ciphertext, 16 of tag.
create domain sealed as bytea check (length(value) between 29 and 4096 and get_byte(value, 0) = 1);
-- 2 bytes that say which key, 16 of HMAC: equal for what is equal in a tenant.
create domain blind_index as bytea check (length(value) = 18);
alter table customers
    add column email sealed,
    add column phone sealed,
    add column tax_id sealed,
    add column bank_account sealed,
    add column address sealed,
    add column email_index blind_index,
    add column tax_id_index blind_index,
    add constraint erased_is_empty check (
        case when erased_at is null then name is not null and email is not null and email_index is not null
                                         and (tax_id is null) = (tax_id_index is null)
             else coalesce(email, phone, tax_id, bank_account, address, email_index, tax_id_index) is null
                  and name is null end);
create index customers_by_email on customers (tenant_id, email_index, created_at desc, id desc) where erased_at is null;
create index customers_by_tax_id on customers (tenant_id, tax_id_index, created_at desc, id desc)
    where erased_at is null;

-- Data keys of tenants, wrapped by a master key. They belong to whoever keeps the keys: no operation reaches them.
create table data_keys (
    of_tenant uuid not null,
    version integer not null check (version > 0),
    -- Which master key wraps it, such as keyset:2.
    wrapped_by text not null check (length(wrapped_by) between 1 and 100),
    -- Null when it was destroyed. The row stays, so that no other key ever has its version.
    wrapped bytea check (length(wrapped) between 29 and 4096),
    created_at timestamptz not null,
    destroyed_at timestamptz,
    primary key (of_tenant, version),
    constraint destroyed_is_empty check ((wrapped is null) = (destroyed_at is not null))
);
create index data_keys_by_master on data_keys (wrapped_by) where wrapped is not null;

-- Which keys of blind indexes there are, so that a service that lacks one, or has another under its version, does not
-- start: it would find nothing and say so.
create table index_keys (
    version integer primary key check (version between 1 and 65535),
    -- What the key makes of a text that is always the same.
    check_value bytea not null check (length(check_value) = 16)
);


-- Keys of customers, wrapped by a data key. In a table of its own, so that a backup can be without it.
create table customer_keys (
    tenant_id uuid not null,
    customer_id uuid not null,
    -- Which data key of the tenant wraps it.
    data_key integer not null check (data_key > 0),
    wrapped sealed not null,
    primary key (tenant_id, customer_id),
    foreign key (tenant_id, customer_id) references customers (tenant_id, id),
    -- A data key that something needs cannot be dropped, whoever asks and whatever is being written meanwhile.
    constraint data_key_is_there foreign key (tenant_id, data_key) references data_keys (of_tenant, version)
);
create index customer_keys_by_data_key on customer_keys (tenant_id, data_key);
alter table customer_keys enable row level security;
alter table customer_keys force row level security;
create policy tenant_isolation on customer_keys
    using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());

-- A customer with its key.
create view customer_documents with (security_invoker = true) as
select c.*, k.data_key, k.wrapped as wrapped_key
from customers c join customer_keys k on k.tenant_id = c.tenant_id and k.customer_id = c.id
where c.erased_at is null;

create function read_customer(tenant uuid, wanted uuid) returns setof customer_documents
    language plpgsql volatile
as $$
begin
    perform enter_tenant(tenant);
    return query select * from customer_documents c where c.tenant_id = tenant and c.id = wanted;
end
$$;

revoke all on function read_customer(uuid, uuid) from public;
grant execute on function read_customer(uuid, uuid) to app_reader;
grant select on customer_documents, customer_keys to app_reader, app_writer;
grant insert, delete on customer_keys to app_writer;
grant update (data_key, wrapped) on customer_keys to app_writer;
grant update (email, phone, tax_id, bank_account, address, email_index, tax_id_index) on customers to app_writer;

grant usage on schema public to app_keys;
grant select on _sqlx_migrations to app_keys;
grant select, insert on data_keys, index_keys to app_keys;
grant select, delete on data_keys, index_keys to app_operator;
grant update (wrapped_by, wrapped, destroyed_at) on data_keys to app_operator;
