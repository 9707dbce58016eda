# PostgreSQL 19, sourced by scripts/provision: it runs with that script's settings and functions.
# shellcheck shell=bash
#
# It is not released yet, so no registry has a build of it as it has of the others. Debian's suite experimental has the
# release candidate. If that suite has moved on, or cannot be reached, the tests of 19 are skipped, in CI too: the
# reason is put into the settings of the test kit, and scripts/test prints it beside the times of the tiers.
#
# When you raise the version: the numbers of PostgreSQL 19 may have changed. The tests in tests/versions.rs
# compare a fresh cluster with crates/pgtypes and say which ones. HOLDFAST_PG19_VERSION tries another version.

readonly PG19_VERSION=${HOLDFAST_PG19_VERSION:-19~rc1-1}
# Raise it when the way of unpacking changes.
readonly PG19_BUILD=1

# Sets pg19 to the folder of the programs; or returns 1, and suite_problem says why.
pg19_provision() {
    local target=$cache/pg19-$PG19_VERSION-$PG19_BUILD
    local packages=$cache/debian-postgresql-19-$PG19_VERSION
    pg19=$target/usr/lib/postgresql/19/bin
    [ ! -d "$target" ] || return 0
    say "getting PostgreSQL $PG19_VERSION from Debian's suite experimental"
    suite_packages "$packages" 'sid experimental' "postgresql-19=$PG19_VERSION" "postgresql-client-19=$PG19_VERSION" \
        "libpq5=$PG19_VERSION" || return 1
    suite_unpack "$packages" "$work/pg19" || return 1
    suite_relocate "$target" "$work"/pg19/usr/lib/postgresql/19/bin/* || return 1
    # No test reads these.
    rm -rf "$work"/pg19/usr/share/{doc,man,info,locale,bug,lintian}
    chmod -R a+rX "$work/pg19"
    mv "$work/pg19" "$target"
    "$pg19/postgres" --version >/dev/null && "$pg19/psql" --version >/dev/null || {
        rm -rf "$target"
        suite_fails 'the unpacked PostgreSQL 19 does not run here' "remove $packages and start again"
    }
}

# The settings of the test kit for PostgreSQL 19. Only one of the two is set.
pg19_settings() {
    if [ -n "$suite_problem" ]; then
        echo "HOLDFAST_PG19_BIN="
        echo "HOLDFAST_PG19_ABSENT=$suite_problem"
    else
        echo "HOLDFAST_PG19_BIN=$pg19"
        echo "HOLDFAST_PG19_ABSENT="
    fi
}
