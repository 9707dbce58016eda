"""The data: pgbench, and a table of wide text that hardly shrinks. And the sum of all rows that proves a restore."""
import dataclasses

from process import Failed

TABLES = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers", "words")


@dataclasses.dataclass(frozen=True)
class Size:
    scale: int  # of pgbench: 100,000 accounts each, about 15 MB
    rows: int  # of wide text, about 190 bytes each
    updates: int  # single rows, scattered over all accounts, before each incremental backup
    segments: int  # of WAL that wait, 16 MiB each
    fetched: int  # of these, fetched again one by one

    def bytes(self):
        """The size of the cluster, roughly."""
        return self.scale * 16_000_000 + self.rows * 200

    def described(self):
        return (f"pgbench -s {self.scale} and {self.rows} rows of text, {self.bytes() / 1e9:.1f} GB; {self.updates} "
                f"scattered updates; {self.segments} segments of WAL, {self.fetched} of them fetched")


FULL = Size(scale=80, rows=7_000_000, updates=10_000, segments=57, fetched=40)
# The part of the pages that the updates touch is the same as in the full size.
QUICK = Size(scale=6, rows=500_000, updates=750, segments=16, fetched=8)
TINY = Size(scale=1, rows=20_000, updates=100, segments=4, fetched=3)

SETTINGS = {
    "fsync": "off", "shared_buffers": "'256MB'", "max_wal_size": "'16GB'", 
    "checkpoint_timeout": "'1h'", "autovacuum": "off", "archive_mode": "on", "archive_command": "''",
    "summarize_wal": "on",
}


def create(server, size):
    """Makes the cluster and its data. Fsync is off: only the backups are measured, not this server."""
    server.create(SETTINGS)
    server.programs.run([server.bin / "pgbench", "-i", "-s", str(size.scale), "-q", "-h", server.sockets, "-p",
                         str(server.port), "-U", "postgres", "postgres"])
    server.sql(
        "select setseed(0.5)",
        "create table words as select g as id, md5(g::text) || md5((g + 1)::text) as a, "
        f"(random() * 1e15)::bigint as b, repeat(md5((g % 1000)::text), 3) as c, "
        "timestamptz '2026-01-01' + g * interval '1 s' as d "
        f"from generate_series(1, {size.rows}) g",
        "vacuum", "checkpoint")


def update(server, size, round_number):
    """Changes rows that are scattered over all accounts, others in each round."""
    server.sql(
        f"select setseed({round_number / 1000})",
        f"update pgbench_accounts set abalance = abalance + 1 where aid in "
        f"(select 1 + (random() * ({size.scale * 100_000} - 1))::int from generate_series(1, {size.updates}))",
        "checkpoint")


def sum_of_rows(server):
    """Returns the number of rows of each table and a sum over all their columns."""
    return server.sql(*(f"select '{name}', count(*), sum(hash_record_extended(t, 0)) from {name} t" for name in TABLES))


def prove(server, expected, what):
    """Starts a restored server, waits until its recovery has ended, compares its rows, and stops it."""
    try:
        server.start("archive_mode=off", "fsync=off", "summarize_wal=off", "shared_buffers=128MB", "autovacuum=off")
        server.until("select not pg_is_in_recovery()", f"the end of the recovery of {what}")
        found = sum_of_rows(server)
    finally:
        server.stop("immediate")
    if found != expected:
        raise Failed(f"{what} does not have the rows of the original:\n{found}\ninstead of\n{expected}")
