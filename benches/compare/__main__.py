#!/usr/bin/env python3
"""Measures Holdfast beside pgBackRest, Barman and PostgreSQL's own tools: on the same data, the same store, in turns.

`make bench` builds Holdfast, installs the others into the cache, and runs this; `make bench BENCH_ARGS=--quick` takes
about five minutes on an idle machine. Every backup that is measured is restored, started and compared afterwards.
"""
import argparse
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

import dataset
import machine
import picture
import places
import report
from bench import Bench
from process import Failed, Programs
from rows import full, incremental, incremental_without_summaries, wal

ROWS = {row.NAME: row for row in (full, incremental, incremental_without_summaries, wal)}
PLACES = ("local", "s3", "s3-20ms")
QUICK_PLACES = ("local", "s3-20ms")
CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(prog="make bench BENCH_ARGS=", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--list", action="store_true", help="show the rows and places, and do nothing")
    parser.add_argument("--quick", action="store_true", help="little data, two alternations, local and s3-20ms")
    parser.add_argument("--smoke", action="store_true", help="almost no data, once, local: does it run?")
    parser.add_argument("--only", action="append", metavar="NAME", choices=ROWS, help="only these rows")
    parser.add_argument("--place", action="append", metavar="NAME",
                        help="only these places: local, s3, s3-20ms, s3-50ms, s3-20ms-50MiBps and so on")
    parser.add_argument("--tool", action="append", metavar="NAME", default=[],
                        help="only these tools: holdfast, pgbackrest, barman, pg_basebackup")
    parser.add_argument("--runs", type=int, help="how many alternations (5, with --quick 2)")
    parser.add_argument("--scale", type=int, help="scale of pgbench (80)")
    parser.add_argument("--rows", type=int, help="rows of wide text (7000000)")
    parser.add_argument("--rivals-from-path", action="store_true", help="take pgBackRest and Barman from the PATH")
    parser.add_argument("--holdfast", type=pathlib.Path, help="measure this program instead of the one that was built")
    parser.add_argument("--output", type=pathlib.Path, help="the folder for bench.md, bench.json and bench.svg")
    parser.add_argument("--segments", type=int, help="WAL segments that wait (57)")
    parser.add_argument("--work", type=pathlib.Path, default="/tmp", help="where data are made, and removed (/tmp)")
    return parser.parse_args()


def size_of(options):
    size = dataset.TINY if options.smoke else dataset.QUICK if options.quick else dataset.FULL
    return dataclasses.replace(size, scale=options.scale or size.scale, rows=options.rows or size.rows,
                               segments=options.segments or size.segments)


def installed(options):
    """Returns where the programs are, from the file that `scripts/provision` writes."""
    cache = subprocess.run([CHECKOUT / "scripts/provision", "--cache"], check=True, capture_output=True, text=True)
    settings = dict(line.split("=", 1) for line in machine.lines(f"{cache.stdout.strip()}/env") if "=" in line)
    release = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", CHECKOUT / "target")) / "release"
    rivals = None if options.rivals_from_path else pathlib.Path(settings.get("HOLDFAST_RIVALS_BIN", "/nowhere"))
    paths = {"postgres": pathlib.Path(settings["HOLDFAST_PG18_BIN"]), "rivals": rivals,
             "built": options.holdfast or release / "holdfast", "built_s3": release / "holdfast-s3"}
    for name, path in paths.items():
        if path and not path.exists():
            raise Failed(f"{path} ({name}) is not there: run make bench, which builds and installs everything")
    return paths


def versions(bench, options):
    found = {"holdfast": bench.programs.run([bench.holdfast, "--version"]).strip(),
             "postgresql": bench.programs.run([bench.server.bin / "postgres", "--version"]).strip()}
    commit = subprocess.run(["git", "-C", CHECKOUT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if options.holdfast:
        found["holdfast"] += f" ({options.holdfast})"
    elif commit.returncode == 0:
        found["holdfast"] += f" ({commit.stdout.strip()})"
    for name, argument in (("pgbackrest", "version"), ("barman-cloud-backup", "--version")):
        if bench.paths["rivals"] or shutil.which(name):
            found[name] = bench.programs.run([bench.rival(name), argument]).strip()
    return found


def measure(bench, options, chosen):
    """Runs all rows at all places. A row that fails is named at the end, and the others continue."""
    failures = []
    names = options.only or list(ROWS)
    if any(name != "wal" for name in names):
        print(f"making the data: pgbench -s {bench.size.scale}, {bench.size.rows} rows of text", flush=True)
        bench.create_data()
    for place in chosen:
        print(place.title, flush=True)
        place.open()
        try:
            for name in names:
                try:
                    ROWS[name].run(bench, place)
                except Failed as failure:
                    failures.append(f"{name}, {place.title}: {failure}")
                    print(f"FAILED {failures[-1]}", file=sys.stderr, flush=True)
        finally:
            place.close()
    return failures


def run(options, folder):
    size, runs = size_of(options), options.runs or (1 if options.smoke else 2 if options.quick else 5)
    needed = 4 * size.bytes() + size.segments * 5 * 2**24
    if (free := shutil.disk_usage(folder).free) < needed:
        raise Failed(f"{folder} has {free >> 30} GiB free of about {needed >> 30} that this needs: see --quick, --work")
    paths = installed(options)
    programs = Programs(folder)
    # The build folder may be closed to PostgreSQL's user.
    for name in ("holdfast", "holdfast-s3"):
        shutil.copy(paths["built" if name == "holdfast" else "built_s3"], folder / name)
        (folder / name).chmod(0o755)
    paths["holdfast"] = folder / "holdfast"
    bench = Bench(programs, paths, size, runs, options.tool)
    usual = ("local",) if options.smoke else QUICK_PLACES if options.quick else PLACES
    chosen = [places.named(programs, folder / "holdfast-s3", name) for name in options.place or usual]
    facts = {"started": report.now(), "machine": machine.described(), "versions": versions(bench, options),
             "runs": runs, "data": size.described()}
    try:
        failures = measure(bench, options, chosen)
    finally:
        # A second ctrl-C must not leave servers running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        facts["load_at_end"] = os.getloadavg()[0]
        bench.stop()
        programs.end_all()
        # What was measured before an interrupt or a failure is not lost.
        if bench.samples:
            written(options, facts, chosen, bench.samples)
    return failures


def written(options, facts, chosen, samples):
    output = options.output or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", CHECKOUT / "target")) / "bench"
    output.mkdir(parents=True, exist_ok=True)
    text = report.markdown(facts, chosen, samples)
    (output / "bench.md").write_text(text, encoding="utf-8")
    (output / "bench.json").write_text(report.as_json(facts, samples), encoding="utf-8")
    (output / "bench.svg").write_text(picture.drawn(chosen, samples), encoding="utf-8")
    print(f"\n{text}\nwritten to {output}/bench.md, bench.json and bench.svg", flush=True)


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    options = arguments()
    if options.list:
        for name, row in ROWS.items():
            print(f"{name:30} {row.WHAT}\n{'':30} {', '.join(kind.title for kind in row.TOOLS)}")
        print(f"{'places':30} {', '.join(PLACES)}; with --quick {', '.join(QUICK_PLACES)}")
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-bench-", dir=options.work))
    folder.chmod(0o755)
    try:
        failures = run(options, folder)
    except Failed as failure:
        failures = [str(failure)]
    except KeyboardInterrupt:
        failures = ["interrupted"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


sys.exit(main())
