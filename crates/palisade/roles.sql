-- The database logins of the service (control AUTHZ-08). Run once per cluster by an
-- administrator, before the first `migrate`. Running it again sets the time-outs below again, and
-- changes nothing else. It needs `createrole`, as administrators of managed PostgreSQL have it, and
-- no superuser.
--
-- Then give each login a password and keep each password where only its user reads it:
--   alter role app_writer with login password '…';
--
-- Logins can be rotated without downtime: `create role app_writer_b login password '…' in role
-- app_writer` gets the same rights, but no time-outs: repeat the `alter role` lines below for it.
--
-- The login `app_backup` can do nothing until backup_role.sql is run.
do $$
declare
    role text;
begin
    foreach role in array array['app_owner', 'app_writer', 'app_reader', 'app_authn', 'app_keys', 'app_operator',
                             'app_incidents', 'app_auditor', 'app_backup'] loop
        if not exists (select from pg_roles where rolname = role) then
            execute format(
                'create role %I login nosuperuser nocreatedb nocreaterole noreplication nobypassrls', role);
        end if;
    end loop;
end
$$;

-- Time-outs for sessions that set none: the service sets its own
-- (`APP_DATABASE__STATEMENT_TIMEOUT_MS`), but a connection pooler may drop them. They end what a
-- frozen replica left behind. They do not stop an attacker, who can set others:
-- docs/runbooks/README.md has the statement that ends a session.
do $$
declare
    role text;
begin
    foreach role in array array['app_writer', 'app_reader', 'app_authn', 'app_keys', 'app_incidents'] loop
        execute format('alter role %I set statement_timeout = ''5s''', role);
        execute format('alter role %I set lock_timeout = ''5s''', role);
        execute format('alter role %I set idle_in_transaction_session_timeout = ''5s''', role);
    end loop;
end
$$;
-- Operators' commands set time-outs for each statement. A forgotten transaction of an operator
-- would block the others. Migrations, backups and audits take as long as they take.
alter role app_operator set lock_timeout = '5s';
alter role app_operator set idle_in_transaction_session_timeout = '1min';

comment on role app_owner is 'owns the schemas; used by migrations only';
comment on role app_writer is 'the service: reads and writes, changes no schema';
comment on role app_reader is 'the service: reads';
comment on role app_authn is 'the service: looks up API keys, revocations, overrides and tenants, records the use of keys, the roles of subjects and new tenants, and nothing else';
comment on role app_keys is 'the service: keeps the data keys of sealed fields, and nothing else';
comment on role app_operator is 'people and tools that handle incidents and rotate keys, and nothing else';
comment on role app_incidents is 'the service, where others may order it to: revokes, throttles and manages tenants, and nothing else';
comment on role app_backup is 'backups: reads everything, and writes nothing';
comment on role app_auditor is 'people and tools that audit the books: reads them, and no customer data';
