"""A PostgreSQL server of the benchmark: the one that is backed up, and the ones that prove a restore."""
import contextlib
import socket
import time

from process import Failed, tail


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, programs, bin_folder, data, sockets):
        self.programs, self.bin, self.data, self.sockets = programs, bin_folder, data, programs.folder_of(sockets)
        self.port = free_port()
        self.log = self.sockets / "server.log"

    def create(self, settings):
        """Makes a cluster with page checksums and these settings, and starts it."""
        self.programs.run([self.bin / "initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "-E", "UTF8",
                           "--locale=C", "--data-checksums", "--no-sync"])
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        self.start()

    def start(self, *settings):
        """Starts the server. It listens at a socket in its own folder only."""
        options = f"-p {self.port} -k {self.sockets} -c listen_addresses=''"
        options += "".join(f" -c {setting}" for setting in settings)
        # The server stays when pg_ctl ends, so its output must not be a pipe: its reader would wait for ever.
        with open(self.sockets / "pg_ctl.log", "ab") as output:
            argv = [self.bin / "pg_ctl", "-D", self.data, "-l", self.log, "-o", options, "-t", "600", "-w", "start"]
            starter = self.programs.begin(argv, output)
            status = starter.wait()
        self.programs.running.remove(starter)
        if status != 0:
            said = tail(self.sockets / "pg_ctl.log")
            raise Failed(f"the server in {self.data} did not start\n{said}\n{tail(self.log, 40)}")

    def stop(self, mode="fast"):
        with contextlib.suppress(Failed):
            self.programs.run([self.bin / "pg_ctl", "-D", self.data, "-m", mode, "-t", "600", "-w", "stop"])

    def sql(self, *statements):
        argv = [self.bin / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-h", self.sockets, "-p", self.port,
                "-U", "postgres", "-d", "postgres"]
        for statement in statements:
            argv += ["-c", statement]
        return self.programs.run(argv).strip()

    def set(self, name, value):
        """Changes a setting that needs no restart."""
        self.sql(f"alter system set {name} = '{value}'", "select pg_reload_conf()")

    def until(self, question, what, limit_seconds=600):
        """Waits until a query answers `t`."""
        deadline = time.monotonic() + limit_seconds
        while self.sql(question) != "t":
            if time.monotonic() > deadline:
                raise Failed(f"{what} did not happen within {limit_seconds} s\n{tail(self.log)}")
            time.sleep(0.05)
