#!/bin/sh
# Writes the secrets of deploy/compose.yaml into one folder for each container. What exists stays.
# Files belong to root and are readable by the group 65532, which the containers have.
set -eu
umask 077
cd /secrets

random() { openssl rand -hex 24; }
key() { openssl rand -base64 32; }
put() { if [ -s "$1" ]; then cat >/dev/null; else cat >"$1"; fi; } # FILE; the contents from standard input

# The certificate authority (CA) of this stack alone. Its key is in no other container.
if [ ! -s ca/ca.pem ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -subj "/CN=CA of this stack" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout ca/key.pem -out ca/ca.pem 2>/dev/null
fi
certificate() { # FOLDER NAME...
    folder=$1
    shift
    cp ca/ca.pem "$folder/ca.pem"
    # A certificate of another CA is the operator's: it stays.
    if [ -s "$folder/certificate.pem" ] &&
        ! openssl verify -no_check_time -CAfile ca/ca.pem "$folder/certificate.pem" >/dev/null 2>&1; then
        return 0
    fi
    # Renewed in its last month, when this runs again. Client certificates live for a year at most.
    ! openssl x509 -checkend 2592000 -noout -in "$folder/certificate.pem" >/dev/null 2>&1 || return 0
    names=$(printf ',DNS:%s' "$@")
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "${names#,}" >/tmp/extensions
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -keyout "$folder/key.pem" -out /tmp/request.pem 2>/dev/null
    openssl x509 -req -in /tmp/request.pem -CA ca/ca.pem -CAkey ca/key.pem -days 360 \
        -set_serial "0x$(openssl rand -hex 16)" -extfile /tmp/extensions -out "$folder/certificate.pem" 2>/dev/null
}
certificate postgres postgres
certificate valkey valkey
certificate api api
certificate collector collector
certificate prometheus prometheus
certificate proxy api.localhost login.localhost grafana.localhost
for folder in database migrate keycloak operator; do cp ca/ca.pem "$folder/ca.pem"; done

# A password for each login of the database, and the URL that has it.
random | put postgres/password
cp postgres/password database/postgres
for login in owner writer reader authn keys operator; do
    random | put "database/app_$login"
    case $login in owner) folder=migrate ;; operator) folder=operator ;; *) folder=api ;; esac
    printf 'postgres://app_%s:%s@postgres:5432/app?sslmode=verify-full&sslrootcert=/run/secrets/ca.pem' \
        "$login" "$(cat "database/app_$login")" | put "$folder/database-$login-url"
done
random | put database/keycloak
cp database/keycloak keycloak/database-password

key | put api/mac-key
key | put api/pepper
printf '1:%s' "$(key)" | put api/master-keys
printf '1:%s' "$(key)" | put api/index-keys

random | put valkey/password
printf 'rediss://:%s@valkey:6379' "$(cat valkey/password)" | put api/quota-redis-url
put valkey/valkey.conf <<CONF
port 0
tls-port 6379
tls-cert-file /run/secrets/certificate.pem
tls-key-file /run/secrets/key.pem
tls-ca-cert-file /run/secrets/ca.pem
tls-auth-clients no
requirepass $(cat valkey/password)
maxmemory 64mb
maxmemory-policy noeviction
save ""
dir /tmp
CONF

random | put keycloak/admin-password
random | put keycloak/demo-password
random | put grafana/password
cp keycloak/admin-password operator/keycloak-admin-password
cp keycloak/demo-password operator/demo-password
cp grafana/password operator/grafana-admin-password

for folder in *; do
    chown -R 0:65532 "$folder"
    chmod 0750 "$folder"
    find "$folder" -type f -exec chmod 0440 {} +
done
# PostgreSQL drops its groups, and wants its key for itself.
chown -R postgres postgres
chmod 0400 postgres/key.pem
