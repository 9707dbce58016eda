# The tools beside which `make bench` measures Holdfast, sourced by scripts/provision: it runs with that script's
# settings and functions.
# shellcheck shell=bash
#
# pgBackRest and Barman come from Debian's newest packages (the suite sid), in exactly these versions, in the way of
# scripts/provision-suites.sh.

readonly PGBACKREST_VERSION=2.60.0-1
readonly BARMAN_VERSION=3.20.1-1
# Raise it when the way of unpacking changes.
readonly RIVALS_BUILD=1

rivals_provision() {
    local target=$cache/rivals-pgbackrest-$PGBACKREST_VERSION-barman-$BARMAN_VERSION-$RIVALS_BUILD
    rivals=$target/bin
    [ ! -d "$target" ] || return 0
    say "downloading pgBackRest $PGBACKREST_VERSION and Barman $BARMAN_VERSION from Debian's suite sid"
    local packages=$cache/debian-rivals-pgbackrest-$PGBACKREST_VERSION-barman-$BARMAN_VERSION
    suite_packages "$packages" sid "pgbackrest=$PGBACKREST_VERSION" "barman-cli-cloud=$BARMAN_VERSION" \
        python3-zstandard && suite_unpack "$packages" "$work/rivals" ||
        fail "$suite_problem" "$suite_hint; or put pgBackRest and Barman on the PATH and use --rivals-from-path"
    rivals_relocate "$work/rivals" "$target"
    mv "$work/rivals" "$target"
    # PostgreSQL's user cannot write here, so Barman would compile its modules at each start.
    PYTHONHOME=$target/usr "$target/usr/bin/python3" -m compileall -q "$target"/usr/lib/python3* >/dev/null || true
    chmod -R a+rX "$target"
    "$rivals/pgbackrest" version >/dev/null && "$rivals/barman-cloud-backup" --version >/dev/null || {
        rm -rf "$target"
        fail "the unpacked pgBackRest and Barman do not run here"
    }
}

# rivals_relocate FOLDER TARGET: makes the programs in FOLDER use the libraries that will be in TARGET.
rivals_relocate() {
    local folder=$1 target=$2 program
    suite_relocate "$target" "$folder"/usr/bin/pgbackrest "$folder"/usr/bin/python3.[0-9]* ||
        fail "$suite_problem" "$suite_hint"
    mkdir "$folder/bin"
    ln -s ../usr/bin/pgbackrest "$folder/bin/pgbackrest"
    for program in "$folder"/usr/bin/barman-cloud-*; do
        program=$(basename "$program")
        cat >"$folder/bin/$program" <<WRAPPER
#!/bin/sh
PYTHONHOME=$target/usr PYTHONPATH=$target/usr/lib/python3/dist-packages
export PYTHONHOME PYTHONPATH
exec $target/usr/bin/python3 $target/usr/bin/$program "\$@"
WRAPPER
        chmod 0755 "$folder/bin/$program"
    done
}
