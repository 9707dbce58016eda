#!/usr/bin/env python3
"""Runs in front of an S3 server and makes its bucket look as if it contained a long WAL archive.

This program answers listings itself, from the server's own files and from invented names of segments. It passes every
other request unchanged to the server. `GET /counts` returns the requests since the last such call, by kind.

    listing_front.py --port P --server HOST:PORT --root FOLDER --bucket B --folder WAL_CLAIM_FOLDER --extension zst
                     --segments N --latency-ms MS
"""
import argparse
import bisect
import collections
import http.client
import http.server
import json
import os
import threading
import time
import urllib.parse
from xml.sax.saxutils import escape

PER_LOG = 256  # segments of 16 MiB in 4 GiB


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--extension", required=True)
    parser.add_argument("--segments", type=int, required=True)
    parser.add_argument("--latency-ms", type=float, default=0)
    return parser.parse_args()


class Bucket:
    """The sorted names in a bucket."""

    def __init__(self, options):
        self.root = os.path.join(options.root, options.bucket)
        self.invented = []
        for number in range(1, options.segments + 1):
            log, segment = divmod(number, PER_LOG)
            folder = f"{options.folder}00000001/00000001{log:08X}/"
            self.invented.append(f"{folder}00000001{log:08X}{segment:08X}.{options.extension}")

    def files(self, prefix):
        """Returns the sizes of the files with a prefix, by name."""
        files = {}
        for folder, _, found in os.walk(self.root):
            for name in found:
                path = os.path.join(folder, name)
                key = os.path.relpath(path, self.root)
                if key.startswith(prefix):
                    files[key] = os.path.getsize(path)
        return files

    def names(self, files, prefix, after):
        """Yields names and sizes with a prefix, after a name, in order: those of files, and the invented ones."""
        real = iter(sorted(name for name in files if name > after))
        at = bisect.bisect_left(self.invented, max(prefix, after))
        waiting = next(real, None)
        while True:
            name = self.invented[at] if at < len(self.invented) else None
            if name is not None and (not name.startswith(prefix) or name <= after):
                if name > after and not name.startswith(prefix):
                    name = None
                else:
                    at += 1
                    continue
            if waiting is not None and (name is None or waiting <= name):
                at += waiting == name
                yield waiting, files[waiting]
                waiting = next(real, None)
            elif name is not None:
                at += 1
                yield name, 4_000_000
            else:
                return

    def page(self, prefix, delimiter, after, limit):
        """Returns objects, common prefixes, and where the next page begins."""
        objects, folders, files = [], [], self.files(prefix)
        position = after
        while True:
            jumped = False
            for name, size in self.names(files, prefix, position):
                if len(objects) + len(folders) == limit:
                    return objects, folders, position
                rest = name[len(prefix):]
                if delimiter and delimiter in rest:
                    folder = prefix + rest[: rest.index(delimiter) + 1]
                    folders.append(folder)
                    # Continue after everything in this folder.
                    position = folder + "\U0010ffff"
                    jumped = True
                    break
                objects.append((name, size))
                position = name
            if not jumped:
                return objects, folders, None


class Front(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket = None
    options = None
    counts = collections.Counter()
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        if self.command == "HEAD":
            for name, value in headers:
                if name.lower() == "content-length":
                    self.send_header(name, value)
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def listing(self, query):
        get = lambda name: query.get(name, [""])[0]
        after = max(get("start-after"), get("continuation-token"))
        objects, folders, following = self.bucket.page(get("prefix"), get("delimiter"), after, 1000)
        xml = ['<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>']
        xml.append(f"<Name>{self.options.bucket}</Name><Prefix>{escape(get('prefix'))}</Prefix>")
        xml.append(f"<KeyCount>{len(objects) + len(folders)}</KeyCount><MaxKeys>1000</MaxKeys>")
        xml.append(f"<IsTruncated>{'true' if following else 'false'}</IsTruncated>")
        if following:
            xml.append(f"<NextContinuationToken>{escape(following)}</NextContinuationToken>")
        for name, size in objects:
            xml.append(f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>")
            xml.append(f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>")
        xml.extend(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders)
        xml.append("</ListBucketResult>")
        self.answer(200, "".join(xml).encode(), [("Content-Type", "application/xml")])

    def handle_any(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/counts":
            with self.lock:
                counts, Front.counts = Front.counts, collections.Counter()
            return self.answer(200, json.dumps(counts).encode())
        query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
        is_listing = self.command == "GET" and "list-type" in query
        kind = "LIST" if is_listing else self.command
        with self.lock:
            Front.counts[kind] += 1
        time.sleep(self.options.latency_ms / 1000)
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if is_listing:
            return self.listing(query)
        server = http.client.HTTPConnection(self.options.server)
        server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            server.putheader(name, value)
        server.endheaders(body)
        response = server.getresponse()
        content = response.read()
        self.answer(response.status, content, response.getheaders())
        server.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that closed its connection is not an error."""


def main():
    Front.options = arguments()
    Front.bucket = Bucket(Front.options)
    Server(("127.0.0.1", Front.options.port), Front).serve_forever()


main()
