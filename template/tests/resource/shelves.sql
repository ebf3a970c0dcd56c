-- Shelves of each tenant's warehouse.
set local lock_timeout = '5s';

create table shelves (
    tenant_id uuid not null,
    id uuid not null,
    name text not null check (length(name) between 1 and 200),
    primary key (tenant_id, id)
);
create index shelves_by_name on shelves (tenant_id, name);
select palisade.isolate_tenants('shelves');
grant select on shelves to app_reader;
