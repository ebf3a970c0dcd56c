-- One customer for each tenant of the bare service, with the id of its tenant.
insert into customers (tenant_id, id, name, email, phone)
select distinct tenant_id, tenant_id, 'Erika Mustermann', 'erika@example.com', '+4930123456' from products;
