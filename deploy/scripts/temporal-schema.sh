#!/bin/sh
# Bring Temporal's two databases to the schema that this admin-tools image carries. Safe to run again:
# an existing database is kept, and only the versions that it lacks are applied.
set -eu

# SQL_PASSWORD is read from the environment by temporal-sql-tool: it must not show in a process list.
: "${SQL_HOST:?}" "${SQL_PORT:?}" "${SQL_USER:?}" "${SQL_PASSWORD:?}"
schemas=${SCHEMA_DIR:-/etc/temporal/schema/postgresql/v12}

sql_tool() {
    temporal-sql-tool --plugin postgres12 --ep "$SQL_HOST" -p "$SQL_PORT" -u "$SQL_USER" "$@"
}

migrate() {
    echo "schema: $1"
    sql_tool --db "$1" create
    sql_tool --db "$1" setup-schema -v 0.0
    sql_tool --db "$1" update-schema -d "$schemas/$2/versioned"
}

migrate temporal temporal
migrate temporal_visibility visibility
echo "schema: done"
