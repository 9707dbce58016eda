"""Holdfast, with and without its agent."""
import json
import time

import process
from places import ACCESS_KEY, BUCKET, REGION, SECRET_KEY
from tools.tool import BACKUP_LEVEL, JOBS, SEGMENT, WAL_LEVEL, Tool


class Holdfast(Tool):
    name, title = "holdfast", "Holdfast"

    def create(self):
        self.config = self.programs.write(self.folder / "holdfast.toml", self.text())
        self.argv = [self.bench.holdfast, "--config", self.config, "--no-progress", "--quiet"]
        self.programs.run([*self.argv, "repo", "init"])

    def text(self):
        if self.place.s3:
            store = (f'url = "s3://{BUCKET}/{self.path}"\nendpoint = "{self.place.endpoint}"\nregion = "{REGION}"\n'
                     f'ca_file = "{self.place.ca_file}"\naccess_key_id = "{ACCESS_KEY}"\n'
                     f'secret_access_key = "{SECRET_KEY}"\n')
        else:
            store = f'url = "file://{self.place.root / self.path}"\n'
        return (f'[cluster]\nname = "main"\npgdata = "{self.server.data}"\n'
                f'connection = "host={self.server.sockets} port={self.server.port} user=postgres dbname=postgres"\n'
                f'[[repo]]\n{store}encryption = "none"\n'
                f'[backup]\ncompression = "zstd:{BACKUP_LEVEL}"\njobs = {JOBS}\nstart_fast = true\n'
                f'[restore]\njobs = {JOBS}\n'
                f'[wal]\ncompression = "zstd:{WAL_LEVEL}"\nspool = "{self.folder / "spool"}"\n')

    def backup(self, incremental=False):
        kind = "incremental" if incremental else "full"
        sample, output = self.programs.measured([*self.argv, "--output", "json", "backup", "--type", kind])
        report = json.loads(output[output.index("{"):])
        self.backups.append(report["repositories"][0]["backup"]["backup_id"])
        return sample

    def restore(self, backup, target):
        return self.programs.measured([*self.argv, "restore", "--pgdata", target, "--backup", backup, "--no-archiving",
                                       "--target-immediate", "--target-action", "promote"])[0]

    def archive_command(self):
        return f'{self.bench.holdfast} --config {self.config} wal push "%p"'

    def get_command(self, folder):
        return [*self.argv, "wal", "get", SEGMENT, "pg_wal/RECOVERYXLOG"]


class HoldfastAgent(Holdfast):
    """The same with the resident agent, which works ahead."""

    name, title = "holdfast-agent", "Holdfast, with its agent"
    agent = None

    def start(self):
        with open(self.folder / "agent.log", "ab") as output:
            self.agent = self.programs.begin([self.bench.holdfast, "--config", self.config, "agent"], output)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.programs.run([*self.argv, "agent", "status"])
                return
            except process.Failed:
                if time.monotonic() > deadline or self.agent.poll() is not None:
                    raise
                time.sleep(0.1)

    def peak_bytes(self):
        return process.high_water(self.agent.pid)

    def stop(self):
        if self.agent:
            self.programs.end(self.agent)
            self.agent = None
