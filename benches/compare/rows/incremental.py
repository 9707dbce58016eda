"""A chain of incremental backups after scattered updates; then its last one and its full one are restored in turn."""
import dataset
from rows.full import restored
from tools.basebackup import BaseBackup
from tools.holdfast import Holdfast
from tools.pgbackrest import PgBackRestBlocks

NAME = "incremental"
WHAT = "incremental backups after scattered updates, with WAL summaries; restores of the last one and of the full one"
TOOLS = (Holdfast, PgBackRestBlocks, BaseBackup)


def run(bench, place, summaries=True):
    suffix = "" if summaries else ", no summaries"
    bench.server.set("summarize_wal", "on" if summaries else "off")
    usable = [kind for kind in TOOLS if summaries or not kind.incremental_needs_summaries]
    tools = [kind(bench, place, f"{NAME}-{summaries}-{kind.name}".lower()) for kind in bench.chosen(usable, place, 0)]
    sums = [dataset.sum_of_rows(bench.server)]
    for tool in tools:
        tool.create()
        with bench.archiving_to(tool):
            tool.backup()
            bench.archived(tool)
    for number in range(bench.runs):
        bench.rounds += 1
        dataset.update(bench.server, bench.size, bench.rounds)
        sums.append(dataset.sum_of_rows(bench.server))
        for tool in tools if number % 2 == 0 else reversed(tools):
            backed_up(bench, place, tool, suffix)
            restored(bench, place, tool, tool.backups[-1], sums[-1], None)
    for number in range(bench.runs if summaries else 0):
        for tool in tools if number % 2 == 0 else reversed(tools):
            last = len(tool.backups) - 1
            restored(bench, place, tool, tool.backups[last], sums[last], f"restore of incremental {last}")
            restored(bench, place, tool, tool.backups[0], sums[0], "restore of its full backup")
    for tool in tools:
        tool.remove()


def backed_up(bench, place, tool, suffix):
    with bench.archiving_to(tool):
        # The WAL of the updates is not part of the backup: it is in the repository before.
        bench.server.sql("select pg_switch_wal()")
        bench.archived(tool)
        before = place.stored_bytes(tool.path)
        place.requests()
        sample = tool.backup(incremental=True)
        sample.requests = place.requests()
        bench.archived(tool)
        sample.stored_bytes = place.stored_bytes(tool.path) - before
    bench.add(f"incremental backup{suffix}", place, tool, sample)
