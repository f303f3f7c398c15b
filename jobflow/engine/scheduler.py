"""The retry scheduler: keeps the lanes filled from Postgres, sweeps for what Redis lost, and ends what came too late.

Ready, scheduled and retrying jobs wait in the same lanes, scored by when they are due, so nothing has to be moved when
its time comes: a pop takes what is due, and the fetchers wake up when the next job is.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from jobflow import failpoints
from jobflow.broker import PRIORITIES, Broker, Page, parse_tail
from jobflow.engine.agenda import Agenda
from jobflow.engine.health import Health
from jobflow.engine.lease import Lease, boottime
from jobflow.engine.loop import Wake
from jobflow.errors import BrokerUnavailable
from jobflow.events import Events, JobMoved
from jobflow.lifecycle import MOVES, Cause, Status
from jobflow.store import Store

PAGE = 2_000  # rows for each fill of a lane
SWEEP_PAGE = 1_000  # rows for each step of the sweep, in each lane
OVERDUE = timedelta(seconds=5)  # a job that is due for longer was lost on its way, or waits behind a backlog
ROUND = 1.0  # seconds
EXPIRED = 500  # jobs ended for each round
NOTHING = Page(0, b"")

Tail = tuple[datetime, UUID] | None
Pages = dict[int, Page]  # by priority


class Scheduler:
    name = "scheduler"

    def __init__(
        self, *, store: Store, broker: Broker, lease: Lease, agenda: Agenda, health: Health, events: Events
    ) -> None:
        self.wake = Wake()
        self._store, self._broker, self._lease = store.pinned(), broker, lease
        self._agenda, self._health, self._events = agenda, health, events
        self._page = min(PAGE, broker.lane_size // 2)
        self._wanted: dict[str, dict[int, str]] = {}  # queue → priority → state of lanes to fill
        self._next_round = 0.0
        self._cursors: dict[str, dict[int, Tail]] = {}
        self._swept: dict[str, int] = {}

    def fill(self, queue: str, lanes: dict[int, str]) -> None:
        """Ask for these lanes to be filled; their state is the one that was seen."""
        self._wanted.setdefault(queue, {}).update(lanes)
        self.wake.set()

    async def tick(self) -> float:
        while self._wanted:
            queue, lanes = self._wanted.popitem()
            try:
                await self._fill(queue, lanes)
                self._health.broker_answered()
            except BrokerUnavailable as error:
                self._health.broker_failed(error)
        if boottime() < self._next_round:
            return self._next_round - boottime()
        self._next_round = boottime() + ROUND * (0.8 + 0.4 * random.random())  # noqa: S311  (spreads processes out)
        if await self._round():
            self._next_round = 0.0  # something had been lost: look for the rest at once
        return max(self._next_round - boottime(), 0.01)

    async def _round(self) -> int:
        """Returns how many lost jobs were found."""
        self._agenda.know(await self._store.list_queues())
        for row in await self._store.expire_jobs(EXPIRED):
            after = MOVES[Status(row["before"])][Cause.EXPIRED]
            self._events.emit(JobMoved(row["id"], Cause.EXPIRED.value, row["before"], after.value))
        found = 0
        try:
            for queue in self._agenda.queues:
                found += await self._sweep(queue)
        except BrokerUnavailable as error:
            self._health.broker_failed(error)
        return found

    async def _fill(self, queue: str, lanes: dict[int, str]) -> None:
        await failpoints.reach("refill.asked")
        tails = {priority: parse_tail(state) for priority, state in lanes.items()}
        found = await self._read(queue, tails, None, self._page)
        await failpoints.reach("refill.read")
        opened: dict[int, Tail] = {}
        for priority, state in lanes.items():
            page = found.get(priority, NOTHING)
            full = len(page) == self._page
            if await self._broker.fill(queue, priority, state, full, page.packed) and not full:
                opened[priority] = tails[priority]
        await failpoints.reach("refill.filled")
        if opened:
            await self._read_again(queue, opened)
        self._agenda.notice(queue)

    async def _read_again(self, queue: str, tails: dict[int, Tail]) -> None:
        """A job that was committed after our read and pushed before we opened its lane was refused there. So read the
        same range once more, from the old tail: what was pushed since the opening was accepted."""
        while tails:
            read = partial(self._read, queue, tails, None, self._page)
            found = await read()
            await failpoints.reach("refill.read_again")
            await self._bring(queue, found, read)
            tails = {p: page.tail for p, page in found.items() if len(page) == self._page}

    async def _sweep(self, queue: str) -> int:
        """One page of each lane's overdue rows: finds lost pushes, lost pops, dead fetchers and late commits."""
        cursors = self._cursors.setdefault(queue, dict.fromkeys(PRIORITIES))
        read = partial(self._read, queue, dict(cursors), self._lease.now() - OVERDUE, SWEEP_PAGE)
        found = await read()
        await failpoints.reach("sweep.read")
        added = await self._bring(queue, found, read)
        await failpoints.reach("sweep.pushed")
        self._swept[queue] = self._swept.get(queue, 0) + sum(map(len, found.values()))
        for priority in PRIORITIES:
            page = found.get(priority, NOTHING)
            # Beyond the window pushes are refused anyway: start again at the head.
            more = len(page) == SWEEP_PAGE and self._swept[queue] < self._broker.lane_size
            cursors[priority] = page.tail if more else None
        if not any(cursors.values()):
            self._swept[queue] = 0
        return added

    async def _bring(self, queue: str, found: Pages, read: Callable[[], Awaitable[Pages]]) -> int:
        """Make what was ``found`` known. Returns how many jobs were not known, or only at a later time.

        Of a job that is known at a later time either the push of a move to an earlier one was lost, and it would wait for
        its old time; or it has moved on since we read it. If it is still where it was when we read again, it is the first.
        """
        added, later = await self._push(queue, found, None)
        if later:
            added += (await self._push(queue, await read(), later))[0]
        return added

    async def _push(self, queue: str, pages: Pages, only: set[UUID] | None) -> tuple[int, set[UUID]]:
        """Push what was read; ``only`` these, whatever is known of them. Returns how many were added or moved, and which
        are known at a later time."""
        rows = [row for page in pages.values() for row in page.entries() if only is None or row.id in only]
        added, later = 0, set[UUID]()
        for start in range(0, len(rows), SWEEP_PAGE):
            pushed = await self._broker.push(queue, rows[start : start + SWEEP_PAGE], fresh=only is not None)
            self._health.broker_answered()
            if pushed.cold:
                self.fill(queue, dict.fromkeys(pushed.cold, ""))
            added += pushed.added
            later.update(pushed.later)
        if added:
            self._agenda.notice(queue)
        return added, later

    async def _read(self, queue: str, tails: dict[int, Tail], before: datetime | None, limit: int) -> Pages:
        pages = await self._store.page_lanes(queue, tails, limit, before)
        return {priority: Page(priority, packed) for priority, packed in pages.items()}
