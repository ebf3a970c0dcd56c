-- Removes what a measurement created, so that the next one starts with the seed. As superuser.
set session_replication_role=replica;
delete from order_lines l using orders o where o.tenant_id=l.tenant_id and o.id=l.order_id and o.created_by<>'seed';
delete from orders where created_by<>'seed';
delete from palisade.idempotency_keys;
delete from palisade.audit_events;
delete from palisade.audit_journal;
delete from palisade.audit_seals;
