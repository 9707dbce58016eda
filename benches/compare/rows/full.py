"""Full backups, and restores into an empty folder."""
import shutil

import dataset
from tools.barman import Barman
from tools.basebackup import BaseBackup
from tools.holdfast import Holdfast
from tools.pgbackrest import PgBackRest
from tools.raw import Raw

NAME = "full"
WHAT = "full backup, and restore into an empty folder"
TOOLS = (Holdfast, PgBackRest, Barman, BaseBackup, Raw)


def run(bench, place):
    expected = dataset.sum_of_rows(bench.server)
    for number in range(bench.runs):
        for kind in bench.chosen(TOOLS, place, number):
            tool = kind(bench, place, f"{NAME}-{kind.name}-{number}")
            tool.create()
            with bench.archiving_to(tool):
                place.requests()
                sample = tool.backup()
                sample.requests = place.requests()
                bench.archived(tool)
                sample.stored_bytes = place.stored_bytes(tool.path)
            bench.add("full backup", place, tool, sample)
            if tool.restores:
                restored(bench, place, tool, tool.backups[-1], expected, "restore")
            tool.remove()


def restored(bench, place, tool, backup, expected, row):
    """Restores a backup and proves it. With a row, the restore is added to it."""
    target = bench.programs.folder / "restored"
    try:
        place.requests()
        sample = tool.restore(backup, target)
        sample.requests = place.requests()
        dataset.prove(bench.server_of("restored"), expected, f"{tool.title}, {place.title}, backup {backup}")
    finally:
        shutil.rmtree(target, ignore_errors=True)
    if row:
        bench.add(row, place, tool, sample)
