#!/usr/bin/env bash
# Starts this service for a comparison with other stacks (`bench.py` of the comparison harness).
#
#   start.sh BINARY CHECKOUT [PORT]
#
# Needs a running `bench.py up`: PostgreSQL and an issuer, described in $STATE. Creates the
# database, migrates and seeds it, starts `serve` with raised limits and a pool of 16, and writes
# $OUT/product.json for `bench.py run --attach --extra`. seed.sql and reset.sql know the schema; a
# test runs both, and checks the names of the settings below.
set -euo pipefail
bin=$1 src=$2 port=${3:-18300}
out=${OUT:-/tmp/peers-build/product}; mkdir -p "$out"
state=${STATE:-/tmp/peers-build/run/env.json}
here=$(cd "$(dirname "$0")" && pwd)
get() { python3 -c "import json,sys; print(json.load(open('$state'))['$1'])"; }
pgport=$(get pg_port) super=$(get super_password) iss=$(get issuer)
A=0190a000-0000-7000-8000-00000000aaaa B=0190a000-0000-7000-8000-00000000bbbb
db=${DB:-product}; u() { echo "postgres://$1:$2@127.0.0.1:$pgport/$3"; }
q() { psql -q -X -v ON_ERROR_STOP=1 "$@"; }
roles=$src/deploy/roles.sql
[ -f "$roles" ] || roles=$src/crates/palisade/roles.sql
q -d "$(u postgres "$super" postgres)" -f "$roles"
for r in $(grep -oE "'app_[a-z]+'" "$roles" | tr -d "'" | sort -u); do
  q -d "$(u postgres "$super" postgres)" -c "alter role $r with login password 'pw$super'"; done
if ! q -At -d "$(u postgres "$super" postgres)" -c "select 1 from pg_database where datname='$db'" | grep -q 1; then
  q -d "$(u postgres "$super" postgres)" -v name=$db -f "$src/deploy/database.sql"; fi
p="pw$super"
export APP_PROFILE=development APP_DATABASE__OWNER_URL=$(u app_owner "$p" $db) 
"$bin" migrate
unset APP_DATABASE__OWNER_URL
if [ "$(q -At -d "$(u postgres "$super" $db)" -c 'select count(*) from orders')" = 0 ]; then
  q -d "$(u postgres "$super" $db)" -v tenant_a=$A -v tenant_b=$B -f "${SQL:-$here}/seed.sql"; fi
# The database knows its keys, so a second start takes the same ones.
keys=$out/keys
[ -f "$keys" ] || for name in SECRETS__MAC_KEY SECRETS__PEPPER KEYS__MASTER KEYS__INDEX; do
  case $name in KEYS__*) version=1: ;; *) version= ;; esac
  echo "APP_$name=$version$(openssl rand -base64 32)"; done > "$keys"
pool=${POOL:-16}
cat > "$out/env" <<V
APP_PROFILE=development
APP_DATABASE__WRITER_URL=$(u app_writer "$p" $db)
APP_DATABASE__READER_URL=$(u app_reader "$p" $db)
APP_DATABASE__AUTHN_URL=$(u app_authn "$p" $db)
APP_DATABASE__KEYS_URL=$(u app_keys "$p" $db)
APP_DATABASE__MAX_CONNECTIONS=$pool
$(cat "$keys")
APP_OIDC__ISSUER=$iss
APP_OIDC__AUDIENCE=api://orders
APP_OIDC__CREATE_TENANTS=true
APP_OIDC__MAX_TOKEN_LIFETIME_SECONDS=3600
APP_HTTP__LISTEN=127.0.0.1:$port
APP_THROTTLE__ADDRESS_PER_SECOND=1000000
APP_THROTTLE__ADDRESS_BURST=1000000
APP_QUOTA__READ_PER_MINUTE=1000000
APP_QUOTA__WRITE_PER_MINUTE=1000000
APP_QUOTA__TENANT_PER_MINUTE=1000000
V
for i in $(seq 1 10 100000); do printf '0190a000-0000-7000-8000-%012x\n' $i; done > "$out/a.ids"   # odd ones are tenant A's
for i in $(seq 2 10 100000); do printf '0190a000-0000-7000-8000-%012x\n' $i; done > "$out/b.ids"
for i in $(seq 1 200); do printf 'SKU-%04d\n' $i; done > "$out/skus"
cat > "$out/product.json" <<V
{"name": "product", "base_url": "http://127.0.0.1:$port", "idempotency_key": false, "database": "$db",
 "tenants": [{"tenant_id": "$A", "ids": "$out/a.ids", "skus": "$out/skus", "claims": {"roles": ["admin"]}},
             {"tenant_id": "$B", "ids": "$out/b.ids", "skus": "$out/skus", "claims": {"roles": ["admin"]}}],
 "reset_sql": "$(grep -v '^--' "${SQL:-$here}/reset.sql" | tr '\n' ' ')"}
V
set -a; . "$out/env"; set +a
setsid "$bin" serve > "$out/product.log" 2>&1 & echo $! > "$out/pid"
for i in $(seq 100); do curl -sf "http://127.0.0.1:$port/health/ready" >/dev/null && break; sleep 0.1; done
curl -s "http://127.0.0.1:$port/health/ready"; echo " pid $(cat "$out/pid")"
