"""How good Holdfast wants to be beside its best rival: the bars of the project, and whether a run meets them."""
import dataclasses

HOLDFAST, AGENT = "Holdfast", "Holdfast, with its agent"
BLOCKS, ASYNC, SYNC = "pgBackRest, block incremental", "pgBackRest, asynchronous", "pgBackRest, synchronous"


@dataclasses.dataclass(frozen=True)
class Bar:
    """Ours divided by the rival's, or by our own other row, is at most `limit`. Without both, ours itself is."""

    row: str
    measure: str  # a key of MEASURES in report.py
    limit: float
    rivals: tuple = ()
    places: tuple = ()  # empty: all
    ours: str = HOLDFAST
    against: str = ""  # another row of ours instead of a rival


def bars(last):
    """Returns the bars; `last` is the number of the last incremental backup of a chain."""
    pgbackrest, stores = ("pgBackRest", "Barman (barman-cloud)"), ("s3", "s3-20ms")
    return [
        Bar("full backup", "wall", 0.55, pgbackrest, ("local",)),
        Bar("full backup", "wall", 0.45, pgbackrest, ("s3",)),
        Bar("full backup", "wall", 0.35, pgbackrest, ("s3-20ms",)),
        Bar("full backup", "stored, MB", 0.9, pgbackrest),
        Bar("full backup", "own CPU", 0.6, pgbackrest),
        Bar("restore", "wall", 0.6, pgbackrest, ("local",)),
        Bar("restore", "wall", 0.5, pgbackrest, ("s3",)),
        Bar("restore", "wall", 0.3, pgbackrest, ("s3-20ms",)),
        Bar("restore", "own CPU", 0.7, pgbackrest),
        Bar("restore", "peak, MiB", 128),
        Bar("incremental backup", "wall", 0.15, (BLOCKS,)),
        Bar("incremental backup", "wall", 0.6, ("pg_basebackup",)),
        Bar("incremental backup", "stored, MB", 40),
        Bar("incremental backup, no summaries", "wall", 1.0, (BLOCKS,)),
        Bar("incremental backup, no summaries", "stored, MB", 40),
        Bar(f"restore of incremental {last}", "wall", 1.15, against="restore of its full backup"),
        Bar("WAL push", "wall", 1 / 3, (ASYNC,), ("s3",), AGENT),
        Bar("WAL push", "wall", 1 / 4, (ASYNC,), ("s3-20ms",), AGENT),
        Bar("WAL push", "machine CPU", 0.5, (ASYNC,), stores, AGENT),
        Bar("WAL push", "wall", 1 / 3, (SYNC,), stores),
        Bar("WAL get", "wall", 1 / 8, (ASYNC,), stores, AGENT),
        Bar("WAL get", "machine CPU", 0.4, (ASYNC,), stores, AGENT),
        Bar("WAL get, 200 ms apart", "each, ms", 5, (), stores, AGENT),
    ]
