-- In a transaction of its own, so that nobody waits while it looks at everybody.
alter table customers validate constraint erased_is_empty;

-- Tenants whose data keys were destroyed before are taken out of the indexes too (control CRYPTO-08): nothing that these
-- point at can be read, and they would need their index key for ever. Who changes one of those customers waits.
do $$
declare
    tenant uuid;
begin
    for tenant in select k.of_tenant from data_keys k group by k.of_tenant having bool_and(k.wrapped is null) loop
        perform set_config('app.tenant_id', tenant::text, true);
        update customers c set email_index = null, tax_id_index = null
        where c.tenant_id = tenant and c.erased_at is null and c.email_index is not null;
    end loop;
    perform set_config('app.tenant_id', '', true);
end
$$;
