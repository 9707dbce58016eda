"""What the benchmark asks of each tool: a repository of its own, backups, restores, and commands for WAL."""
from places import ACCESS_KEY, REGION, SECRET_KEY

JOBS = 2
BACKUP_LEVEL, WAL_LEVEL = 3, 1
# In a command for WAL, where the name of the segment belongs.
SEGMENT = "%f"


class Tool:
    """A tool with a repository of its own at one place. Its folder on this machine holds configuration and spool."""

    name = title = ""
    incremental_needs_summaries = False
    restores = True

    def __init__(self, bench, place, path, server=None):
        self.bench, self.programs, self.place, self.path = bench, bench.programs, place, path
        self.server = server or bench.server
        self.folder = self.programs.folder_of(bench.programs.folder / "tools" / place.name / path)
        self.environment = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        } if place.s3 else {}
        self.backups = []

    @staticmethod
    def works_at(place):
        return True

    def create(self):
        """Makes the repository; nobody measures that."""

    def backup(self, incremental=False):
        """Makes a backup, adds its name to `backups`, and returns its sample."""
        raise NotImplementedError

    def restore(self, backup, target):
        """Restores a backup into a folder that does not exist yet, and returns its sample."""
        raise NotImplementedError

    def archive_command(self):
        return ""

    def get_command(self, folder):
        """Returns the command that brings `SEGMENT` to `pg_wal/RECOVERYXLOG` of a data directory, in which it runs."""
        raise NotImplementedError

    def start(self):
        """Starts what must run beside PostgreSQL."""

    def stop(self):
        """Ends what runs beside PostgreSQL, and waits for what the tool itself began."""

    def remove(self):
        """Removes the repository, so that the disk does not fill up."""
        self.place.remove(self.path)
