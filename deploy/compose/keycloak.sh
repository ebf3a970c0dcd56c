#!/bin/bash
# Starts Keycloak, which takes passwords from its environment and not from files.
set -eu
KC_DB_PASSWORD=$(</run/secrets/database-password)
KC_BOOTSTRAP_ADMIN_PASSWORD=$(</run/secrets/admin-password)
# realm.json names it.
DEMO_PASSWORD=$(</run/secrets/demo-password)
export KC_DB_PASSWORD KC_BOOTSTRAP_ADMIN_PASSWORD DEMO_PASSWORD
exec /opt/keycloak/bin/kc.sh start --import-realm
