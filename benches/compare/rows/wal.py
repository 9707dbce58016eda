"""WAL segments that wait: how fast the archiver gets them into the store; and fetching them again, one by one.

PostgreSQL's own archiver runs the command. The clock starts when it gets the command, and stops when the store has all
the segments: not when PostgreSQL believes so. The same segments wait again for the next tool, with a new repository.
"""
import hashlib
import shlex
import shutil
import time

import machine
import process
from process import Failed, Sample
from tools.holdfast import Holdfast, HoldfastAgent
from tools.pgbackrest import PgBackRestAsynchronous, PgBackRestWal
from tools.tool import SEGMENT

NAME = "wal"
WHAT = "WAL: waiting segments into the store, and from the store one by one"
REPLAY_SECONDS = 0.2
TOOLS = (HoldfastAgent, PgBackRestAsynchronous, Holdfast, PgBackRestWal)


def run(bench, place):
    segments = bench.waiting_segments()
    for number in range(bench.runs):
        for kind in bench.chosen(TOOLS, place, number):
            tool = kind(bench, place, f"{NAME}-{kind.name}-{number}", bench.wal_server)
            tool.create()
            try:
                tool.start()
                bench.add("WAL push", place, tool, pushed(bench, place, tool, segments))
                wanted = segments[: bench.size.fetched]
                bench.add("WAL get", place, tool, fetched(bench, place, tool, wanted))
                sample = fetched(bench, place, tool, wanted[: len(wanted) // 2], REPLAY_SECONDS)
                bench.add("WAL get, 200 ms apart", place, tool, sample)
            finally:
                bench.wal_server.set("archive_command", "")
                tool.stop()
            tool.remove()


def pushed(bench, place, tool, segments):
    status = bench.wal_server.data / "pg_wal" / "archive_status"
    for segment in segments:
        if (status / f"{segment}.done").exists():
            (status / f"{segment}.done").rename(status / f"{segment}.ready")
    place.requests()
    own = process.cpu_of(tool.agent.pid) if isinstance(tool, HoldfastAgent) else None
    cpu, start = machine.cpu_seconds(), time.monotonic()
    bench.wal_server.set("archive_command", tool.archive_command())
    while not place.segments(tool.path).issuperset(segments):
        if time.monotonic() > start + 600:
            raise Failed(f"{tool.title} did not archive the segments\n{process.tail(bench.wal_server.log)}")
        time.sleep(0.02)
    sample = Sample(time.monotonic() - start, machine_cpu_seconds=machine.cpu_seconds() - cpu)
    if own is not None:
        sample.own_cpu_seconds, sample.peak_bytes = process.cpu_of(tool.agent.pid) - own, tool.peak_bytes()
    bench.archived(tool, bench.wal_server)
    sample.requests, sample.stored_bytes = place.requests(), place.stored_bytes(tool.path)
    sample.each_seconds = [sample.wall_seconds / len(segments)]
    return sample


# What a recovery does with each segment: the clock runs only while the command does. The pause stands for the replay.
FETCH = """
for segment in $SEGMENTS; do
    start=${EPOCHREALTIME/[.,]/}
    "$@" || exit
    echo $((${EPOCHREALTIME/[.,]/} - start))
    mv pg_wal/RECOVERYXLOG "$KEPT/$segment"
    sleep $PAUSE
done
"""


def fetched(bench, place, tool, segments, pause_seconds=0):
    """Runs the tool's command for each segment as `restore_command` does, and compares what it brings."""
    data, kept = bench.programs.folder / "recovering", bench.programs.folder / "fetched"
    for folder in (data / "pg_wal", data / "global", kept):
        bench.programs.folder_of(folder)
    for file in ("global/pg_control", "PG_VERSION"):
        bench.programs.run(["cp", bench.wal_server.data / file, data / file])
    command = ["bash", "-c", FETCH.replace('"$@"', shell_words(tool.get_command(data)))]
    environment = {"SEGMENTS": " ".join(segments), "KEPT": str(kept), "PAUSE": str(pause_seconds)}
    place.requests()
    cpu = machine.cpu_seconds()
    try:
        output = bench.programs.run(command, tool.environment | environment, cwd=data)
        if not isinstance(tool, HoldfastAgent):
            tool.stop()
        cpu = machine.cpu_seconds() - cpu
        for segment in segments:
            if digest(kept / segment) != digest(bench.wal_server.data / "pg_wal" / segment):
                raise Failed(f"{tool.title} brought another {segment} than it stored")
    finally:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(kept, ignore_errors=True)
    each = [int(line) / 1e6 for line in output.split()]
    sample = Sample(sum(each), machine_cpu_seconds=cpu, requests=place.requests(), each_seconds=each)
    if isinstance(tool, HoldfastAgent):
        sample.peak_bytes = tool.peak_bytes()
    return sample


def shell_words(argv):
    """The command in the loop's shell, in which the segment is a variable."""
    return " ".join('"$segment"' if word == SEGMENT else shlex.quote(str(word)) for word in argv)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
