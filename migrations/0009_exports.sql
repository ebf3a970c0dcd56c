-- Exports have a quota of their own, which operators can change for a tenant too (controls CRYPTO-09, RATE-04).
alter table tenant_quotas drop constraint tenant_quotas_quota_check;
alter table tenant_quotas add constraint tenant_quotas_quota_check
    check (quota in ('tenant', 'read', 'write', 'sensitive', 'export'));
