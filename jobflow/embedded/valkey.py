"""A private Valkey (or Redis). What it holds can be rebuilt from Postgres, so a broken copy is set aside."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import ClassVar

import redis

from jobflow.embedded.process import Pause, Say, Server, number_in
from jobflow.embedded.programs import find_redis

# The password stands here and not on the command line, which everybody on the machine can read.
CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
pidfile pid
set-proc-title no
"""


class Valkey(Server):
    name: ClassVar[str] = "Valkey"
    endings: ClassVar = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))

    def __init__(self, folder: Path, *, password: str, program: Path | None, say: Say, pause: Pause) -> None:
        super().__init__(folder, say=say, pause=pause)
        self.password = password
        self.program = find_redis(program)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        super().start()

    def command(self) -> list[str]:
        config = self.folder / "valkey.conf"
        with open(config, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(CONFIG.format(port=self.port, password=self.password))
        return [str(self.program), str(config)]

    @property
    def mark(self) -> str:
        return str(self.folder / "valkey.conf")

    def recorded_pid(self) -> int | None:
        return number_in(self.folder / "pid")

    def answers(self, pid: int) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def repaired(self, problem: str) -> bool:
        blameless = any(words in problem for words in ("No space left", "Permission denied", "Read-only"))
        if blameless or not (self.folder / "appendonlydir").exists():
            return False
        aside = self.folder.with_name("valkey.broken")
        self.say(f"Valkey cannot read its data; setting it aside in {aside} and starting with an empty one ...")
        shutil.rmtree(aside, ignore_errors=True)
        (self.folder / "appendonlydir").rename(aside)
        return True
