"""The raw limit of a machine for full backups: `tar | zstd` of the same files. It checks nothing and stores no WAL."""
import shlex

from tools.tool import BACKUP_LEVEL, JOBS, Tool


class Raw(Tool):
    name, title = "tar", f"tar, zstd -{BACKUP_LEVEL} -T{JOBS}"
    restores = False

    @staticmethod
    def works_at(place):
        return not place.s3

    def create(self):
        self.root = self.programs.folder_of(self.place.root / self.path)

    def backup(self, incremental=False):
        data, archive = shlex.quote(str(self.server.data)), shlex.quote(str(self.root / "data.tar.zst"))
        # tar ends with 1 if a file changed meanwhile, which is no failure here.
        script = f"tar -C {data} -cf - base 2>/dev/null | zstd -{BACKUP_LEVEL} -T{JOBS} -q -o {archive}"
        return self.programs.measured(["sh", "-c", script])[0]
