#!/usr/bin/env bash
# PostgreSQL 19 (19~rc1): `pg_control_init()` says that pages have checksums after `pg_checksums --disable`, and that
# they have none after `--enable`.
#
# One would expect the present state: up to 18 the function shows it, `pg_controldata` of the same server shows it, and
# the column still has the name `data_page_checksum_version`. Seen instead: the value that `initdb` wrote. The control
# file of 19 has two fields, `data_checksum_version_init` and `data_checksum_version`, and the function reads the first.
#
# So a program that asks SQL whether to check pages reports damage on every page of a sound cluster, or checks nothing.
# It has to ask for the setting `data_checksums`, or read the second field (offset 268).
#
# Needs: bash, apt, pip and python3 on Debian or Ubuntu on x86-64; runs the server as `nobody` when started as root.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d /tmp/finding.XXXXXX)
chmod 0755 "$work"
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid nobody --regid nogroup --clear-groups); fi
finish() {
    [ ! -e "$work/run/data/postmaster.pid" ] ||
        "${as[@]}" "$pg19/pg_ctl" -D "$work/run/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

say() { echo "$*"; }
cache=$work
. "$here/../scripts/provision-suites.sh"
. "$here/../scripts/provision-pg19.sh"
pg19_provision || {
    echo "the server cannot be had: $suite_problem ($suite_hint)" >&2
    exit 2
}
mkdir "$work/run"
[ ${#as[@]} = 0 ] || chown nobody:nogroup "$work/run"
cd "$work/run"
run() { env HOME="$work/run" LC_ALL=C "${as[@]}" "$@"; }
fail() {
    echo "CHANGED: $1" >&2
    exit 1
}

# What the running server says: the setting, and the function.
states() {
    run "$pg19/pg_ctl" -D data -l log -w -t 60 -o "-c unix_socket_directories=$work/run -c listen_addresses=" start \
        >/dev/null
    run "$pg19/psql" -X -h "$work/run" -U postgres -d postgres -Atqc \
        "SELECT current_setting('data_checksums'), data_page_checksum_version FROM pg_control_init()"
    run "$pg19/pg_ctl" -D data -m fast -w stop >/dev/null
}

for change in '--data-checksums --disable off|1 0' '--no-data-checksums --enable on|0 1'; do
    read -r initially switch expected file <<<"$change"
    rm -rf data
    run "$pg19/initdb" -D data --username=postgres --auth=trust --no-sync "$initially" >/dev/null
    run "$pg19/pg_checksums" "$switch" -D data >/dev/null 2>&1
    stored=$(run "$pg19/pg_controldata" -D data | sed -n 's/^Data page checksum version: *//p')
    found=$(states)
    echo "initdb $initially, pg_checksums $switch: pg_controldata $stored, data_checksums|pg_control_init() $found"
    [ "$stored" = "$file" ] || fail "pg_controldata prints $stored"
    [ "$found" = "$expected" ] || fail "the function does not show the value of initdb"
done
echo "pg_control_init() shows what initdb chose, and not what is so now"
