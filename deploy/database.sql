-- Creates the database of the service. `app_owner` owns it; only the logins of the service can
-- connect. Run once by an administrator with `createdb` and `createrole` after roles.sql:
--   psql -v name=app -f deploy/database.sql

-- An administrator that is no superuser must be a member of the owner while it creates the database.
grant app_owner to current_user;
create database :"name" owner app_owner;
revoke all on database :"name" from public;
grant connect on database :"name" to app_writer, app_reader, app_authn, app_keys, app_operator, app_incidents,
                                             app_auditor, app_backup;
revoke app_owner from current_user;
