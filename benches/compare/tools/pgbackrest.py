"""pgBackRest, as its users set it up: bundles, zstd, two processes; synchronous and asynchronous for WAL."""
import json
import time

from places import ACCESS_KEY, BUCKET, REGION, SECRET_KEY
from process import Failed
from tools.tool import BACKUP_LEVEL, JOBS, SEGMENT, WAL_LEVEL, Tool


class PgBackRest(Tool):
    name, title = "pgbackrest", "pgBackRest"
    # Block incremental backups need a full backup with blocks, too. Full backups are measured without.
    blocks, asynchronous, level = False, False, BACKUP_LEVEL

    def create(self):
        self.config = self.programs.write(self.folder / "pgbackrest.conf", self.text())
        self.argv = [self.bench.rival("pgbackrest"), f"--config={self.config}", "--stanza=main"]
        self.programs.run([*self.argv, "stanza-create"])

    def text(self):
        yes = {True: "y", False: "n"}
        settings = {
            "repo1-bundle": "y", "repo1-block": yes[self.blocks], "repo1-retention-full": 100, "compress-type": "zst",
            "compress-level": self.level, "process-max": JOBS, "start-fast": "y", "log-level-console": "warn",
            "log-level-file": "off", "lock-path": self.folder / "lock", "spool-path": self.folder / "spool",
            "log-path": self.folder / "log", "archive-async": yes[self.asynchronous],
        }
        if self.place.s3:
            settings |= {
                "repo1-type": "s3", "repo1-path": f"/{self.path}", "repo1-s3-bucket": BUCKET,
                "repo1-s3-endpoint": "localhost", "repo1-storage-port": self.place.port, "repo1-s3-uri-style": "path",
                "repo1-s3-region": REGION, "repo1-s3-key": ACCESS_KEY, "repo1-s3-key-secret": SECRET_KEY,
                "repo1-storage-ca-file": self.place.ca_file,
            }
        else:
            settings["repo1-path"] = self.place.root / self.path
        return ("[global]\n" + "".join(f"{name}={value}\n" for name, value in settings.items()) +
                f"[main]\npg1-path={self.server.data}\npg1-port={self.server.port}\n"
                f"pg1-socket-path={self.server.sockets}\npg1-user=postgres\n")

    def backup(self, incremental=False):
        kind = "incr" if incremental else "full"
        sample, _ = self.programs.measured([*self.argv, f"--type={kind}", "backup"])
        info = json.loads(self.programs.run([*self.argv, "--output=json", "info"]))
        self.backups.append(info[0]["backup"][-1]["label"])
        return sample

    def restore(self, backup, target):
        self.programs.folder_of(target)
        return self.programs.measured([*self.argv, f"--pg1-path={target}", f"--set={backup}", "--type=immediate",
                                       "--target-action=promote", "--archive-mode=off", "restore"])[0]

    def archive_command(self):
        return f'{self.argv[0]} --config={self.config} --stanza=main archive-push "%p"'

    def get_command(self, folder):
        return [*self.argv, f"--pg1-path={folder}", "archive-get", SEGMENT, "pg_wal/RECOVERYXLOG"]

    def stop(self):
        deadline = time.monotonic() + 120
        while self.programs.left_behind(self.config):
            if time.monotonic() > deadline:
                raise Failed(f"pgBackRest with {self.config} does not end by itself")
            time.sleep(0.1)


class PgBackRestBlocks(PgBackRest):
    title, blocks = "pgBackRest, block incremental", True


class PgBackRestWal(PgBackRest):
    name, title, level = "pgbackrest-sync", "pgBackRest, synchronous", WAL_LEVEL


class PgBackRestAsynchronous(PgBackRestWal):
    name, title, asynchronous = "pgbackrest-async", "pgBackRest, asynchronous", True
