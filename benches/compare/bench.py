"""One run of the benchmark: its servers, its order of tools, and the samples that it collects."""
import contextlib
import pathlib
import shutil

import dataset
from process import Failed
from server import Server

# Before a tool gets the archive, what waits goes nowhere: so no tool stores what another one caused.
NOWHERE = "/bin/true"


class Bench:
    def __init__(self, programs, paths, size, runs, only_tools):
        self.programs, self.paths, self.size, self.runs, self.only_tools = programs, paths, size, runs, only_tools
        self.holdfast = paths["holdfast"]
        self.samples = {}
        self.rounds = 0
        self.server, self.wal_server = self.server_of("data"), self.server_of("wal-data")
        self.names_of_segments = []

    def rival(self, program):
        return self.paths["rivals"] / program if self.paths["rivals"] else pathlib.Path(shutil.which(program))

    def add(self, row, place, tool, sample):
        """Keeps a sample, and shows it."""
        self.samples.setdefault((place.name, row), {}).setdefault(tool.title, []).append(sample)
        print(f"  {place.name:12} {row:32} {tool.title:30} {sample.wall_seconds:8.2f} s", flush=True)

    def chosen(self, kinds, place, number):
        """Returns the tools that work at a place, in the other order each second time: A B, B A, A B."""
        kinds = [kind for kind in kinds if kind.works_at(place) and self.is_wanted(kind)]
        return kinds if number % 2 == 0 else kinds[::-1]

    def is_wanted(self, kind):
        return not self.only_tools or any(kind.name.startswith(name) for name in self.only_tools)

    @contextlib.contextmanager
    def archiving_to(self, tool):
        """Gives a tool the archive of the server for a while."""
        self.server.set("archive_command", NOWHERE)
        self.server.sql("select pg_switch_wal()")
        self.archived(tool)
        self.server.set("archive_command", tool.archive_command() or NOWHERE)
        yield
        # Not after a failure: then the next tool sets it, and a server that was stopped could not.
        self.server.set("archive_command", "")

    def archived(self, tool, server=None):
        """Waits until the archiver has nothing left to do."""
        server = server or self.server
        server.until("select count(*) = 0 from pg_ls_archive_statusdir() where name like '%.ready'",
                     f"archiving all WAL with {tool.title}", 120)

    def server_of(self, name):
        """Returns the server of a data directory in the folder of this benchmark, with a socket of its own."""
        folder = self.programs.folder
        return Server(self.programs, self.paths["postgres"], folder / name, folder / f"{name}-socket")

    def create_data(self):
        """Makes the cluster that is backed up, unless a row has made it already."""
        if not self.server.data.exists():
            dataset.create(self.server, self.size)

    def waiting_segments(self):
        """Makes a cluster whose archiver has work, unless it is there, and returns the names of its segments."""
        if not self.names_of_segments:
            self.wal_server.create(dataset.SETTINGS | {"summarize_wal": "off", "wal_keep_size": "'8GB'"})
            ready = self.wal_server.data / "pg_wal" / "archive_status"
            for number in range(1000):
                names = sorted(file.stem for file in ready.glob("0*.ready"))
                # The first segment is that of initdb.
                if len(names) > self.size.segments:
                    break
                self.wal_server.sql(
                    f"create table w{number} as select g, md5(g::text) as a, md5((g * 7)::text) as b "
                    f"from generate_series({number * 200000}, {number * 200000 + 199999}) g",
                    f"create index on w{number} (a)", f"create index on w{number} (b)")
            else:
                raise Failed("the server does not make enough WAL")
            self.names_of_segments = names[1 : self.size.segments + 1]
            # The others are not measured.
            for name in set(names) - set(self.names_of_segments):
                (ready / f"{name}.ready").rename(ready / f"{name}.done")
            for name in self.names_of_segments:
                (ready / f"{name}.ready").rename(ready / f"{name}.done")
        return self.names_of_segments

    def stop(self):
        for server in (self.server, self.wal_server, self.server_of("restored")):
            if (server.data / "postmaster.pid").exists():
                server.stop("immediate")
