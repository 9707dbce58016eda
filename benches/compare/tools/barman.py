"""Barman's tools for object stores: barman-cloud-backup and its companions."""
import json

from places import BUCKET
from tools.tool import JOBS, Tool


class Barman(Tool):
    name, title = "barman", "Barman (barman-cloud)"

    @staticmethod
    def works_at(place):
        return place.s3

    def create(self):
        self.url = f"s3://{BUCKET}/{self.path}"
        self.options = ["--endpoint-url", self.place.endpoint]
        self.environment |= {"AWS_CA_BUNDLE": str(self.place.ca_file), "LC_ALL": "C.UTF-8"}

    def backup(self, incremental=False):
        sample, _ = self.programs.measured(
            [self.bench.rival("barman-cloud-backup"), *self.options, "--zstd", "--immediate-checkpoint", "-J", JOBS,
             "-h", self.server.sockets, "-p", self.server.port, "-U", "postgres", self.url, "main"], self.environment)
        listed = json.loads(self.programs.run([self.bench.rival("barman-cloud-backup-list"), *self.options, "--format",
                                               "json", self.url, "main"], self.environment))
        self.backups.append(max(backup["backup_id"] for backup in listed["backups_list"]))
        return sample

    def restore(self, backup, target):
        sample, _ = self.programs.measured([self.bench.rival("barman-cloud-restore"), *self.options, self.url, "main",
                                            backup, target], self.environment)
        with open(target / "postgresql.auto.conf", "a", encoding="utf-8") as file:
            file.write(f"restore_command = '{self.command('barman-cloud-wal-restore')} %f %p'\n"
                       "recovery_target = 'immediate'\nrecovery_target_action = 'promote'\n")
        self.programs.write(target / "recovery.signal", "")
        return sample

    def archive_command(self):
        return f'{self.command("barman-cloud-wal-archive")} "%p"'.replace(" s3:", " --zstd s3:")

    def command(self, name):
        """Returns a command line for PostgreSQL, whose environment has neither the keys nor the CA."""
        words = [f"{key}={value}" for key, value in self.environment.items()]
        words += [self.bench.rival(name), *self.options, self.url, "main"]
        return "env " + " ".join(str(word) for word in words)
