#!/usr/bin/env python3
"""Tests of what a benchmark computes, without servers: `python3 benches/compare/tests.py`. They run in `make test`."""
import json
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True

import bars
import picture
import places
import report
from process import Programs, Sample

FACTS = {"started": "2026-11-30 21:30 UTC", "runs": 2, "data": "some", "versions": {"holdfast": "1"}, "machine": {
    "cores": 2, "processor": "a processor", "memory_bytes": 2**30, "kernel": "6", "load_at_start": 0.5},
    "load_at_end": 1.0}


class Computed(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.programs = Programs(self.folder)

    def test_requests_are_named_as_s3_names_them(self):
        for method, path, kind in (
            ("GET", "/bench/key", "GET"),
            ("GET", "/bench?list-type=2&prefix=a", "LIST"),
            ("GET", "/bench/?delimiter=%2F", "LIST"),
            ("PUT", "/bench/key?partNumber=1&uploadId=2", "PUT part"),
            ("POST", "/bench/key?uploads", "POST"),
        ):
            self.assertEqual(places.kind(method, path), kind, path)

    def test_only_new_requests_are_counted(self):
        place = places.named(self.programs, "/none", "s3-20ms")
        self.assertEqual(place.requests(), {})
        place.log.parent.mkdir(parents=True)
        place.log.write_text("PUT /bench/a 200\nGET /bench/a 200\n")
        self.assertEqual(place.requests(), {"PUT": 1, "GET": 1})
        with open(place.log, "a", encoding="utf-8") as file:
            file.write("PUT /bench/b 200\n")
        self.assertEqual(place.requests(), {"PUT": 1})

    def test_names_of_places_are_read_and_others_refused(self):
        slow = places.named(self.programs, "/none", "s3-20ms-50MiBps")
        self.assertEqual((slow.latency_ms, slow.bandwidth, slow.name), (20, 50 << 20, "s3-20ms-50MiBps"))
        self.assertFalse(places.named(self.programs, "/none", "local").s3)
        with self.assertRaises(places.Failed):
            places.named(self.programs, "/none", "s3-fast")

    def test_a_segment_counts_when_its_final_name_is_there(self):
        place = places.Local(self.programs)
        folder = place.root / "a"
        folder.mkdir(parents=True)
        segment = "00000001000000000000000A"
        for name in (f"{segment}.partial", f"{segment}-0123.zst.pgbackrest.tmp", f"{segment}0", "00000002.history"):
            (folder / name).touch()
        self.assertEqual(place.segments("a"), set())
        (folder / f"{segment}-0123456789.zst").touch()
        self.assertEqual(place.segments("a"), {segment})

    def test_a_ratio_is_that_of_the_medians_with_the_pairs_as_its_spread(self):
        ours, theirs = [Sample(1.0), Sample(2.0), Sample(9.0)], [Sample(4.0), Sample(4.0), Sample(3.0)]
        self.assertEqual(report.ratio(ours, theirs, "wall"), (0.5, [0.25, 0.5, 3.0]))
        self.assertEqual(report.ratio(ours, theirs, "own CPU"), (None, []))

    def test_bars_are_met_or_missed(self):
        samples = {
            ("local", "full backup"): {bars.HOLDFAST: [Sample(1.0)], "pgBackRest": [Sample(2.0)]},
            ("local", "restore"): {bars.HOLDFAST: [Sample(1.3, peak_bytes=200 << 20)], "pgBackRest": [Sample(2.0)]},
        }
        found = [(row, measure, beside, round(value, 2), met) for row, _, measure, beside, _, value, met in
                 report.judged(samples)]
        self.assertEqual(found, [
            ("full backup", "wall", "pgBackRest", 0.5, "met"),
            ("restore", "wall", "pgBackRest", 0.65, ""),
            ("restore", "peak, MiB", "", 200.0, ""),
        ])

    def test_every_form_of_a_report_can_be_written(self):
        place = places.Local(self.programs)
        samples = {("local", "WAL get"): {
            bars.AGENT: [Sample(1.0, requests={"GET": 2, "LIST": 1}, each_seconds=[0.5, 0.5])],
            bars.ASYNC: [Sample(4.0, stored_bytes=5_000_000)],
        }}
        text = report.markdown(FACTS, [place], samples)
        self.assertIn("| WAL get | **Holdfast, with its agent** | 1.00; 500 ms each |  |", text)
        self.assertIn("2 GET, 1 LIST", text)
        self.assertIn("| WAL get | pgBackRest, asynchronous | 4.00 | 0.25 (0.25 to 0.25) |", text)
        rows = json.loads(report.as_json(FACTS, samples))["rows"]
        self.assertEqual(rows[0]["samples"][0]["requests"], {"GET": 2, "LIST": 1})
        self.assertIn("4.00 s", picture.drawn([place], samples))


if __name__ == "__main__":
    unittest.main()
