"""PostgreSQL refuses to run as root: find a way to run it as somebody else.

No account is made and no mode is changed outside the data folder. A checkout in a home folder of mode 700 has to
work, so the substitute for root keeps one capability: to pass folders that are closed to others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from jobflow.embedded.process import EmbeddedError

NOBODY = 65534
KEPT = "+dac_override"

# Run by a substitute: may it write into the folder, is it somebody else than root, can it run the program?
PROBE = '[ "$(id -u)" != 0 ] && : >"$1/probe" && "$2" --version'


class Account(NamedTuple):
    prefix: tuple[str, ...] = ()  # goes before the command
    owner: int | None = None  # user and group id that the data must belong to; None: whoever made them

    def own(self, folder: Path) -> None:
        """Give a folder and everything in it to this account."""
        if self.owner is None or folder.stat().st_uid == self.owner:
            return
        for path in (*folder.rglob("*"), folder):  # the folder last: it tells next time whether all of it was done
            os.chown(path, self.owner, self.owner, follow_symlinks=False)


# For root, the first that works. Containers often forbid one of them.
SUBSTITUTES = (
    Account(
        prefix=(
            "setpriv",
            "--securebits=+no_setuid_fixup",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            f"--inh-caps={KEPT}",
            f"--ambient-caps={KEPT}",
        ),
        owner=NOBODY,
    ),
    # In its user namespace root's files look like the substitute's own, so they stay root's.
    Account(prefix=("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"), owner=0),
)


def find_account(folder: Path, program: Path) -> Account:
    """The account for PostgreSQL: ours, or a substitute for root that can use ``folder`` and run ``program``.

    Raises EmbeddedError: we are root and no substitute works.
    """
    if os.geteuid() != 0:
        return Account()
    for account in SUBSTITUTES:
        if _works(account, folder / "probe", program):
            return account
    raise EmbeddedError(
        "PostgreSQL does not run as root, and neither setpriv nor unshare (package util-linux) could start it as "
        "somebody else: install util-linux, run Jobflow as an ordinary user, or set DATABASE_URL."
    )


def _works(account: Account, probe: Path, program: Path) -> bool:
    try:
        probe.mkdir(mode=0o700, exist_ok=True)
        account.own(probe)
        command = [*account.prefix, "sh", "-c", PROBE, "sh", str(probe), str(program)]
        return not subprocess.run(command, capture_output=True, timeout=30, check=False).returncode  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return False
    finally:
        shutil.rmtree(probe, ignore_errors=True)
