-- Takes back what a round of measurement changed, as superuser. The audit trail stays.
set session_replication_role = replica;
delete from order_lines l using orders o
where o.tenant_id = l.tenant_id and o.id = l.order_id and o.created_by <> 'seed';
delete from orders where created_by <> 'seed';
delete from payments;
update orders o set status = 'invoiced' from invoices i
where i.tenant_id = o.tenant_id and i.order_id = o.id and i.status = 'paid';
update invoices set status = 'open', paid_amount = 0 where status = 'paid';
