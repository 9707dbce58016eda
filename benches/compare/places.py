"""Where backups go: a folder of this machine, or an S3 server on it, over TLS, also with a slow network in between."""
import collections
import re
import shutil
import time
import urllib.parse

from process import Failed, tail
from server import free_port

BUCKET, ACCESS_KEY, SECRET_KEY, REGION = "bench", "bench", "bench-secret", "us-east-1"


class Local:
    name = "local"
    title = "local repository"
    s3 = False

    def __init__(self, programs):
        self.programs = programs
        self.root = programs.folder / "places" / self.name

    def open(self):
        self.programs.folder_of(self.root)

    def close(self):
        shutil.rmtree(self.root, ignore_errors=True)

    def requests(self):
        """Returns the requests since the last call, by kind; `None` for a place without requests."""
        return None

    def stored_bytes(self, path):
        """Returns the bytes of all files of a repository."""
        return sum(file.stat().st_size for file in (self.root / path).rglob("*") if file.is_file())

    def segments(self, path):
        """Returns the names of the WAL segments that a repository has, whatever is appended to their names."""
        return {found.group(1) for file in (self.root / path).rglob("0*")
                if (found := re.match(r"([0-9A-F]{24})(?![0-9A-F])(?!.*(tmp|partial))", file.name)) and file.is_file()}

    def remove(self, path):
        shutil.rmtree(self.root / path, ignore_errors=True)


class S3(Local):
    """`holdfast-s3` of the test kit: s3s-fs with TLS in front, and its network."""

    s3 = True

    def __init__(self, programs, program, latency_ms=0, bandwidth=0):
        super().__init__(programs)
        self.program, self.latency_ms, self.bandwidth = program, latency_ms, bandwidth
        self.name = f"s3-{latency_ms}ms" if latency_ms else "s3"
        self.name += f"-{bandwidth >> 20}MiBps" if bandwidth else ""
        self.title = "S3 over TLS" + (f", {latency_ms} ms of latency" if latency_ms else "")
        self.title += f", {bandwidth >> 20} MiB/s a connection" if bandwidth else ""
        self.folder = programs.folder / "places" / self.name
        self.root = self.folder / "objects" / BUCKET
        self.ca_file = self.folder / "tls" / "ca.pem"
        self.log = self.folder / "requests"
        self.server = None
        self.read_to = 0

    def open(self):
        self.programs.folder_of(self.folder)
        output = self.folder / "server.log"
        argv = [self.program, "--root", self.folder / "objects", "--address", f"127.0.0.1:{free_port()}", "--bucket",
                BUCKET, "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY, "--tls", self.folder / "tls", "--log",
                self.log]
        argv += ["--latency-ms", self.latency_ms] if self.latency_ms else []
        argv += ["--bandwidth", self.bandwidth] if self.bandwidth else []
        with open(output, "wb") as file:
            self.server = self.programs.begin(argv, file)
        deadline = time.monotonic() + 30
        while not (found := re.search(r"https://localhost:(\d+)", output.read_text())):
            if time.monotonic() > deadline or self.server.poll() is not None:
                raise Failed(f"the S3 server did not start\n{tail(output)}")
            time.sleep(0.05)
        self.port = int(found.group(1))
        self.endpoint = f"https://localhost:{self.port}"

    def close(self):
        if self.server:
            self.programs.end(self.server)
        shutil.rmtree(self.folder, ignore_errors=True)

    def requests(self):
        counts = collections.Counter()
        if not self.log.exists():
            return {}
        with open(self.log, encoding="utf-8") as file:
            file.seek(self.read_to)
            for line in file:
                counts[kind(*line.split(" ")[:2])] += 1
            self.read_to = file.tell()
        return dict(counts)


def kind(method, path):
    """Returns what S3 calls a request, shortly: LIST and the parts of uploads apart from GET and PUT."""
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query, keep_blank_values=True)
    if method == "GET" and ("list-type" in query or "prefix" in query or "delimiter" in query):
        return "LIST"
    if method == "PUT" and "partNumber" in query:
        return "PUT part"
    return method


def named(programs, s3_program, name):
    """Returns the place with this name, such as `local`, `s3`, `s3-20ms` or `s3-20ms-50MiBps`."""
    if name == "local":
        return Local(programs)
    found = re.fullmatch(r"s3(?:-(\d+)ms)?(?:-(\d+)MiBps)?", name)
    if not found:
        raise Failed(f"there is no place {name!r}: use local, s3, s3-20ms or s3-20ms-50MiBps, with your numbers")
    return S3(programs, s3_program, int(found[1] or 0), int(found[2] or 0) << 20)
