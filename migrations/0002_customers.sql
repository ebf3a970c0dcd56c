-- Customers. All personal data but the name is sealed by the service (controls CRYPTO-02 to
-- CRYPTO-08); palisade.row_keys has the key of each row.
set local lock_timeout = '5s';

create table customers (
    tenant_id uuid not null,
    id uuid not null,
    -- Null once the customer is erased: the row stays for orders and invoices.
    name text check (length(name) between 1 and 200),
    email palisade.sealed,
    phone palisade.sealed,
    tax_id palisade.sealed,
    bank_account palisade.sealed,
    address palisade.sealed,
    email_index palisade.blind_index,
    tax_id_index palisade.blind_index,
    created_by text not null check (length(created_by) between 1 and 255),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    erased_at timestamptz,
    primary key (tenant_id, id),
    -- Without email_index: a customer of a tenant whose data keys are destroyed.
    constraint erased_is_empty check (
        case when erased_at is not null
                 then num_nonnulls(name, email, phone, tax_id, bank_account, address, email_index, tax_id_index) = 0
             when email_index is null then num_nulls(name, email) = 0 and tax_id_index is null
             else num_nulls(name, email) = 0 and (tax_id is null) = (tax_id_index is null) end)
);
-- Each index serves one list, newest first, with its filter.
create index customers_by_time on customers (tenant_id, created_at desc, id desc) where erased_at is null;
create index customers_by_email on customers (tenant_id, email_index, created_at desc, id desc)
    where erased_at is null;
create index customers_by_tax_id on customers (tenant_id, tax_id_index, created_at desc, id desc)
    where erased_at is null;
select palisade.isolate_tenants('customers');

create trigger delete_row_key after delete on customers
    for each row execute function palisade.delete_row_key();

-- Erasure is final.
create function reject_change_of_erased_customer() returns trigger
    language plpgsql
as $$
begin
    raise exception 'an erased customer cannot be changed' using errcode = 'check_violation';
end
$$;
create trigger reject_change_of_erased_customer before update on customers
    for each row when (old.erased_at is not null) execute function reject_change_of_erased_customer();

-- A customer with its row key.
create view customer_documents with (security_invoker = true) as
select c.*, k.data_key, k.wrapped as wrapped_key, k.index_key
from customers c
join palisade.row_keys k on k.tenant_id = c.tenant_id and k.sealed_table = 'customers' and k.row_id = c.id
where c.erased_at is null;

revoke all on all functions in schema public from public;
grant select on customers, customer_documents to app_writer, app_reader;
grant insert, update (name, email, phone, tax_id, bank_account, address, email_index, tax_id_index, updated_at,
                      erased_at)
    on customers to app_writer;
