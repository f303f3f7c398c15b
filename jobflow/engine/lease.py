"""What a process may believe about itself: who it is, whether its lease still holds, and what Postgres' clock says."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

TRUST = 0.8  # of the lease, counted from the start of the beat: we stop believing before Postgres does
SLACK = timedelta(milliseconds=2)  # Postgres must agree that what we call due is due
PROOF = 1.0  # seconds for which a time that Postgres has told holds by itself; its clock may be set back


def boottime() -> float:
    """Seconds of a clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Lease:
    """Written by the heartbeat's thread, read by the loop: plain attributes, each written whole.

    seconds: length of the lease. Identities are never reused; runs keep the one they were claimed under.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.worker: UUID | None = None
        self.identities: tuple[UUID, ...] = ()
        self.trust_until = 0.0
        self.answered = 0.0  # when the last beat was answered
        self.healthy_since: float | None = None  # since when every beat was answered
        self.alive = 1  # living processes
        self.moved = boottime()  # when the loop last moved, as its watchdog says
        self.audited = 0.0  # when the last self-audit was asked for
        self._shaken = 0.0  # when a connection broke last: what was claimed over it has to be audited first
        self._zero = datetime.now(UTC) - timedelta(seconds=boottime())  # Postgres' time at our clock's zero
        self._asked = False
        self._told, self._told_until = datetime.min.replace(tzinfo=UTC), 0.0

    def take(self, worker: UUID) -> None:
        self.worker = worker
        self.identities = (*self.identities, worker)

    def confirm(self, started: float, ended: float, now: datetime) -> None:
        """A beat that began at ``started`` was answered: Postgres' clock said ``now`` somewhere between."""
        self.trust_until = started + TRUST * self.seconds
        self.answered = ended
        # Never ahead of Postgres: what is popped too early is refused, and found again only by the sweep. So of what its
        # clock shows at least, the most that a beat has proved, and no more than this one allows.
        least, most = now - timedelta(seconds=ended), now - timedelta(seconds=started)
        self._zero = min(max(self._zero, least), most) if self._asked else least
        self._asked = True
        if self.healthy_since is None:
            self.healthy_since = ended

    def doubt(self) -> None:
        """A beat was not answered."""
        self.healthy_since = None

    def shake(self) -> None:
        """A connection broke: Postgres may have forgotten claims of the last second. No new claim before an audit."""
        self._shaken = boottime()

    def trusted(self) -> bool:
        """Whether a claim may be sent now."""
        return self.worker is not None and boottime() < self.trust_until and self.audited >= self._shaken

    def healthy(self) -> bool:
        """Whether this process may judge others: its own beats were answered for two periods without a failure, and up to
        now: who stood still for a while does not know yet whether Postgres did, too."""
        periods = 2 * self.seconds / 5
        return self.healthy_since is not None and boottime() - self.healthy_since > periods > self.silence()

    def silence(self) -> float:
        """Seconds since a beat was answered."""
        return boottime() - self.answered

    def tell(self, moment: datetime) -> None:
        """Postgres' clock has shown this: what was due then need not wait until our reckoning says so, too."""
        if moment > self._told or boottime() > self._told_until:
            self._told, self._told_until = moment, boottime() + PROOF

    def now(self) -> datetime:
        """Postgres' time, a little behind: Redis' clock and this machine's are never asked."""
        reckoned = self._zero + timedelta(seconds=boottime()) - SLACK
        return max(reckoned, self._told) if boottime() < self._told_until else reckoned
