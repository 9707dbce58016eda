"""The same chain on a server that does not summarize its WAL: changed pages are found by reading everything."""
from rows import incremental

NAME = "incremental-without-summaries"
WHAT = "incremental backups after scattered updates, with summarize_wal off"
TOOLS = tuple(kind for kind in incremental.TOOLS if not kind.incremental_needs_summaries)


def run(bench, place):
    incremental.run(bench, place, summaries=False)
    bench.server.set("summarize_wal", "on")
