"""Starts programs as PostgreSQL's user, measures them, and ends everything that was started.

As root every program runs as the user `postgres`, because PostgreSQL refuses root. Each program has a session of its
own: so ctrl-C reaches only this one, which then ends the others in an order of its choice.
"""
import contextlib
import dataclasses
import os
import pathlib
import pwd
import signal
import subprocess
import threading
import time

import machine

SAMPLE_SECONDS = 0.1


class Failed(Exception):
    """A program that did not do what a benchmark needs."""


@dataclasses.dataclass
class Sample:
    """What one run cost. CPU of the machine is that of all programs: servers, and what others run meanwhile."""

    wall_seconds: float
    own_cpu_seconds: float | None = None
    machine_cpu_seconds: float | None = None
    peak_bytes: int | None = None
    stored_bytes: int | None = None
    requests: dict | None = None
    each_seconds: list | None = None


class Programs:
    """Everything that this benchmark runs, in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []
        self.identity = {}
        self.environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "HOME": str(folder)}
        self.environment["TMPDIR"] = str(folder)
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self.identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)

    def give(self, path):
        """Makes PostgreSQL's user the owner of a file or folder that this program has made."""
        if self.identity:
            os.chown(path, self.identity["user"], self.identity["group"])

    def folder_of(self, path):
        """Makes a folder with its parents, which belong to PostgreSQL's user too."""
        path = pathlib.Path(path)
        if not path.exists():
            if path != self.folder:
                self.folder_of(path.parent)
            path.mkdir(mode=0o700, exist_ok=True)
            self.give(path)
        return path

    def write(self, path, text):
        path = pathlib.Path(path)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        self.give(path)
        return path

    def begin(self, argv, output, environment=None, cwd=None, errors=None):
        """Starts a program whose output goes to a file, and returns it."""
        started = subprocess.Popen(
            [str(part) for part in argv], stdin=subprocess.DEVNULL, stdout=output, stderr=errors or output,
            env=self.environment | (environment or {}), cwd=cwd or self.folder, start_new_session=True, **self.identity)
        self.running.append(started)
        return started

    def run(self, argv, environment=None, cwd=None):
        """Runs a program to its end and returns what it wrote to standard output."""
        log = self.folder / "last-errors"
        with open(log, "wb") as errors:
            started = self.begin(argv, subprocess.PIPE, environment, cwd, errors)
            output = started.communicate()[0].decode(errors="replace")
        self.running.remove(started)
        if started.returncode != 0:
            raise Failed(f"{shown(argv)} ended with {started.returncode}\n{output[-2000:]}{tail(log)}")
        return output

    def measured(self, argv, environment=None, cwd=None):
        """Runs a program to its end and returns its [`Sample`] and what it wrote to standard output and error."""
        log = self.folder / "last-output"
        with open(log, "wb") as output:
            cpu, start = machine.cpu_seconds(), time.monotonic()
            started = self.begin(argv, output, environment, cwd)
            memory = Memory(started.pid)
            _, status, usage = os.wait4(started.pid, 0)
            wall, cpu = time.monotonic() - start, machine.cpu_seconds() - cpu
        started.returncode = os.waitstatus_to_exitcode(status)
        self.running.remove(started)
        peak = memory.end()
        if started.returncode != 0:
            raise Failed(f"{shown(argv)} ended with {started.returncode}\n{tail(log)}")
        sample = Sample(wall, usage.ru_utime + usage.ru_stime, cpu, peak)
        return sample, log.read_text(encoding="utf-8", errors="replace")

    def end(self, started):
        """Ends a program that was begun, with SIGTERM and, after ten seconds, SIGKILL."""
        if started not in self.running:
            return
        self.running.remove(started)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(timeout=10)
                return

    def end_all(self):
        """Ends everything that still runs, and the background processes that tools have left in this folder."""
        for started in list(reversed(self.running)):
            self.end(started)
        for number in (signal.SIGTERM, signal.SIGKILL):
            left = self.left_behind()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + 10
            while left and self.left_behind() and time.monotonic() < deadline:
                time.sleep(0.1)

    def left_behind(self, marker=None):
        """Returns the processes that name a path of this benchmark's own folder as an argument."""
        marker = str(marker or self.folder).encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with contextlib.suppress(OSError):
                    arguments = pathlib.Path("/proc", entry, "cmdline").read_bytes()
                    if any(marker in part for part in arguments.split(b"\0")[1:]) and mine(entry, self.identity):
                        found.append(int(entry))
        return found


class Memory:
    """The peak of the memory of a program and its children: shared pages count once, as PSS counts them.

    The kernel keeps the peak of each process (`VmHWM`), but none of all of them together, so this looks every 100 ms.
    """

    def __init__(self, leader):
        self.leader = leader
        self.peak = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.ended.wait(SAMPLE_SECONDS if self.peak else 0.01):
            self.peak = max(self.peak, together(self.leader))

    def end(self):
        self.ended.set()
        self.thread.join()
        return self.peak or None


def together(leader):
    """Returns the bytes of all processes of a session, or the peak of one of them if that is more."""
    total = highest = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = pathlib.Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()
            if int(stat[3]) != leader:
                continue
            for line in machine.lines(f"/proc/{entry}/smaps_rollup"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
            highest = max(highest, high_water(entry))
    return max(total, highest)


def high_water(pid):
    """Returns the most bytes that a process has had in memory, 0 if it is gone."""
    with contextlib.suppress(OSError):
        for line in machine.lines(f"/proc/{pid}/status"):
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def cpu_of(pid):
    """Returns the CPU seconds of a running process and of its children that have ended."""
    stat = pathlib.Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK")


def mine(pid, identity):
    return os.stat(f"/proc/{pid}").st_uid == identity.get("user", os.geteuid())


def shown(argv):
    return " ".join(str(part) for part in argv)


def tail(path, lines=20):
    """Returns the end of a log, for a message."""
    try:
        return "\n".join(pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
