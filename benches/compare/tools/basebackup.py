"""PostgreSQL's own pg_basebackup and pg_combinebackup: plain files in a folder, not compressed."""
from tools.tool import Tool


class BaseBackup(Tool):
    name, title = "pg_basebackup", "pg_basebackup"
    incremental_needs_summaries = True

    @staticmethod
    def works_at(place):
        return not place.s3

    def create(self):
        self.root = self.programs.folder_of(self.place.root / self.path)

    def backup(self, incremental=False):
        folder = self.root / str(len(self.backups))
        argv = [self.server.bin / "pg_basebackup", "-D", folder, "-c", "fast", "-X", "stream",
                "-h", self.server.sockets, "-p", self.server.port, "-U", "postgres"]
        if incremental:
            argv += ["--incremental", self.root / str(len(self.backups) - 1) / "backup_manifest"]
        sample, _ = self.programs.measured(argv)
        self.backups.append(len(self.backups))
        return sample

    def restore(self, backup, target):
        """Combines the chain. A full backup is combined too, which copies it."""
        chain = [self.root / str(number) for number in range(backup + 1)]
        return self.programs.measured([self.server.bin / "pg_combinebackup", "-o", target, *chain])[0]
