-- Lets the login `app_backup` read all rows of all tenants, for the commands `backup` and
-- `audit verify`. Optional: run it after roles.sql if backups are made with `backup`. It needs a
-- superuser.
--
-- Managed PostgreSQL has no superuser, and may not let its administrator give `bypassrls` or
-- `pg_read_all_data`. Then leave this out, use the snapshots of the provider for backups, and run
-- `audit verify` on a copy of the database on a server of your own.
alter role app_backup bypassrls;
grant pg_read_all_data to app_backup;
