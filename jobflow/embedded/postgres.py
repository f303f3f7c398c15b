"""A private PostgreSQL: made once in a folder of its own, with a role and a database for Jobflow."""

from __future__ import annotations

import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from jobflow.embedded.account import Account, find_account
from jobflow.embedded.process import EmbeddedError, Pause, Say, Server, command_of, run
from jobflow.embedded.programs import find_postgres

NAME = "jobflow"  # of the role and of its database

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may have 107 bytes only, so it would depend on where we live
    "max_connections": "100",
    "shared_buffers": "256MB",  # taken only as it is used; a list by a common tag looks at 80 MB of the table
    "max_locks_per_transaction": "256",  # a statement over all day partitions locks each with its indexes
    "wal_level": "minimal",  # nobody replicates from here
    "max_wal_senders": "0",
    "wal_compression": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
# For tests: a crash of the machine may cost the data, a crash of Postgres does not.
HASTY = {"fsync": "off", "full_page_writes": "off"}


class Postgres(Server):
    name: ClassVar[str] = "PostgreSQL"
    endings: ClassVar = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))

    def __init__(
        self, folder: Path, *, password: str, durable: bool, programs: Path | None, say: Say, pause: Pause
    ) -> None:
        super().__init__(folder, say=say, pause=pause)
        self.password = password
        self.settings = SETTINGS | ({} if durable else HASTY)
        self.programs, self.major = find_postgres(programs)
        self.account = Account()

    @property
    def url(self) -> str:
        return f"postgresql://{NAME}:{self.password}@127.0.0.1:{self.port}/{NAME}"

    def start(self) -> None:
        if not self._usable():
            self._build()
        super().start()

    def set_passwords(self) -> None:
        """Make a database that knows another password take ours, for example after the file with it was lost."""
        if self._usable():
            self._sql(self.folder, *self._passwords())

    def _usable(self) -> bool:
        """Make the data folder ready for us; False: there is none yet. Raises EmbeddedError: we cannot use it."""
        self.account = find_account(self.folder.parent, self.programs / "postgres")
        if not self.folder.exists():
            return False
        self.remove_leftover()
        version = self.folder / "PG_VERSION"
        if not version.exists():
            raise EmbeddedError(f"{self.folder} is not a whole PostgreSQL data folder: move it away, then start again.")
        if (made_by := version.read_text().strip()) != str(self.major):
            raise EmbeddedError(
                f"{self.folder} was made by PostgreSQL {made_by} and this is PostgreSQL {self.major}: move the folder "
                f"away to begin with an empty database, or install PostgreSQL {made_by}."
            )
        self.account.own(self.folder)
        # Postgres refuses while a process has the number in its pid file, even when that is some other program by now.
        # Of a process that may be a Postgres the file is never taken away: two of them would ruin the data.
        if (pid := self.recorded_pid()) and (command := command_of(pid)) and "postgres" not in command:
            (self.folder / "postmaster.pid").unlink()
        return True

    def _build(self) -> None:
        """Make the data folder beside its place and rename it in the end: an interrupted build leaves no half one."""
        self.say(f"Preparing PostgreSQL {self.major} in {self.folder.parent} (first run only) ...")
        for old in self.folder.parent.glob("postgres.new-*"):
            shutil.rmtree(old, ignore_errors=True)
        # A name of its own: if we were killed, the last run's initdb may still be writing into its folder.
        new = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.folder.parent))
        self.account.own(new)
        locale = ["--locale=C"]
        if self.major >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb = [str(self.programs / "initdb"), "-D", str(new), "-U", "postgres", "--encoding=UTF8", *locale]
        # Everybody is refused until the line below asks for a password; `postgres --single` needs none.
        self._run("Preparing PostgreSQL", [*initdb, "--auth=reject", "--no-instructions"])
        (new / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        # It must see who holds a transaction open, whoever that is.
        role = [f"CREATE ROLE {NAME} LOGIN", f"GRANT pg_read_all_stats TO {NAME}"]
        self._sql(new, *role, f"CREATE DATABASE {NAME} OWNER {NAME}", *self._passwords())
        new.rename(self.folder)

    def _passwords(self) -> list[str]:
        return [f"ALTER ROLE {role} PASSWORD '{self.password}'" for role in (NAME, "postgres")]

    def _sql(self, folder: Path, *statements: str) -> None:
        """Run statements in a server of their own, without a network; each is one line of its input."""
        single = [str(self.programs / "postgres"), "--single", "-D", str(folder), *self._options(), "postgres"]
        self._run("Setting up PostgreSQL", single, "\n".join((*statements, "")).encode())

    def _run(self, name: str, command: list[str], stdin: bytes = b"") -> None:
        run(name, [*self.account.prefix, *command], self.log, self.pause, stdin)

    def _options(self) -> list[str]:
        return [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]

    def command(self) -> list[str]:
        postgres = str(self.programs / "postgres")
        return [*self.account.prefix, postgres, "-D", str(self.folder), "-p", str(self.port), *self._options()]

    @property
    def mark(self) -> str:
        return f"-D {self.folder} "

    def _pid_file(self) -> list[str]:
        with suppress(OSError):
            return (self.folder / "postmaster.pid").read_text().splitlines()
        return []

    def recorded_pid(self) -> int | None:
        with suppress(ValueError, IndexError):
            return abs(int(self._pid_file()[0])) or None
        return None

    def answers(self, pid: int) -> bool:
        # The eighth line is Postgres's own word for it; `pg_ctl` waits for the same.
        lines = self._pid_file()
        return len(lines) > 7 and lines[7].strip() == "ready" and self.recorded_pid() == pid

    def repaired(self, problem: str) -> bool:
        # Children of a killed server need a moment to notice that it is gone.
        if "pre-existing shared memory block" not in problem:
            return False
        for _ in range(50):
            self.pause()
        return True
