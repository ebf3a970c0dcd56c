#!/bin/sh
# Creates logins and databases of deploy/compose.yaml, or sets their passwords again.
set -eu
PGPASSWORD=$(cat /run/secrets/postgres)
export PGPASSWORD
psql="psql --no-psqlrc --quiet --set ON_ERROR_STOP=1"
server="host=postgres user=postgres dbname=postgres sslmode=verify-full sslrootcert=/run/secrets/ca.pem"
$psql --file /sql/roles.sql "$server"
for login in owner writer reader authn keys operator; do
    # From the environment, because arguments are visible to other processes.
    PASSWORD=$(cat "/run/secrets/app_$login") $psql "$server" <<SQL
\set password \`echo "\$PASSWORD"\`
alter role app_$login with login password :'password';
SQL
done
exists() { [ "$($psql --tuples-only --no-align --command "select 1 from pg_$1 where $2" "$server")" = 1 ]; }
exists database "datname = 'app'" || $psql --set name=app --file /sql/database.sql "$server"
exists roles "rolname = 'keycloak'" || $psql --command "create role keycloak login" "$server"
PASSWORD=$(cat /run/secrets/keycloak) $psql "$server" <<'SQL'
\set password `echo "$PASSWORD"`
alter role keycloak with password :'password';
SQL
exists database "datname = 'keycloak'" || $psql --command "create database keycloak owner keycloak" "$server"
