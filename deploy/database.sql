-- Creates the database of the service. `app_owner` owns it; only the logins of the service can
-- connect. Run once by an administrator after roles.sql:   psql -v name=orders -f deploy/database.sql
create database :"name" owner app_owner;
revoke all on database :"name" from public;
grant connect on database :"name" to app_writer, app_reader, app_authn, app_keys, app_operator, app_incidents,
                                             app_auditor, app_backup;
