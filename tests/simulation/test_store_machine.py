"""Random calls in random order, made twice: of the real statements on a real Postgres, and of the model of the simulation.

Both must answer alike and look alike after every call; so what the simulation proves about the model holds for the
statements. Of the real tables it is checked besides that moves are legal, epochs rise and counters are exact.

``STORE_MACHINE_EXAMPLES=2000`` makes it longer, and different at each run.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from unittest.mock import patch
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from uuid_utils.compat import uuid7

from jobflow import lifecycle
from jobflow.broker import Page
from jobflow.lifecycle import MOVES, Change, Failure, Run, Status
from jobflow.pool import Pool
from jobflow.statements import SQL
from jobflow.store import Store
from tests.simulation.postgres import START, Postgres, Record, Transaction
from tests.simulation.rules import Rules
from tests.support import oracle
from tests.support.rows import new_job, real_counts

EXAMPLES = int(os.environ.get("STORE_MACHINE_EXAMPLES", "0"))
HOUR = 3600.0
BOOM = Failure("ValueError", "boom")
TABLES = "jobs, jobs_done, job_attempts, workers, queues, counters, counter_deltas, counter_minutes, oracle"

SEEN = """
SELECT j.id, j.status, j.attempt, j.rescues, j.locked_by, j.cancel_requested_at IS NOT NULL, j.cancel_reason,
       j.error_type, j.unique_key FROM jobs j
UNION ALL SELECT id, 'completed', attempt, rescues, locked_by, NULL, NULL, error_type, unique_key FROM jobs_done
"""


def ids_of(pages: dict[int, bytes]) -> dict[int, set[UUID]]:
    return {priority: {entry.id for entry in Page(priority, packed).entries()} for priority, packed in pages.items()}


class ModelPool:
    """The product's Store on the model, without a network between them."""

    def __init__(self, model: Postgres) -> None:
        self.model = model
        self.tx: Transaction | None = None

    @asynccontextmanager
    async def connection(self, share: str) -> AsyncIterator[Any]:
        yield self

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self.tx = Transaction()
        try:
            yield
        finally:
            transaction, self.tx = self.tx, None
        self.model.commit(transaction)

    async def fetch(self, text: str, *args: Any) -> list[Record]:
        name = next(name for name, known in SQL.items() if known == text)
        return self.model.run(name, args, self.tx)

    async def fetchrow(self, text: str, *args: Any) -> Record | None:
        return next(iter(await self.fetch(text, *args)), None)

    async def fetchval(self, text: str, *args: Any) -> Any:
        row = await self.fetchrow(text, *args)
        return None if row is None else row[0]


ENDS: dict[str, Callable[[Run], Change]] = {
    "complete": lambda run: lifecycle.complete(run, b"1"),
    "fail": lambda run: lifecycle.fail(run, BOOM, 0.0),
    "fail for long": lambda run: lifecycle.fail(run, BOOM, HOUR),
    "discard": lambda run: lifecycle.discard(run, BOOM),
    "cancel": lambda run: lifecycle.cancel(run, "no need"),
    "snooze": lambda run: lifecycle.snooze(run, HOUR),
    "release": lifecycle.release,
    "unstart": lifecycle.unstart,
    "hand back": lifecycle.hand_back,
}

few = st.lists(st.integers(0, 11), min_size=1, max_size=4, unique=True)
some = st.one_of(few, st.just(list(range(12))))  # often all of them, or runs would be rare
one = st.integers(0, 11)


class Twins(RuleBasedStateMachine):
    """``real`` and ``model`` are stores; each run is kept twice, since epochs come from two clocks."""

    url = ""
    runner: asyncio.Runner
    database: Any
    pool: Any

    def __init__(self) -> None:
        super().__init__()
        self.rules_ = Rules()
        self.server = Postgres(lambda: time.time() - START.timestamp(), self.rules_)
        self.twin = ModelPool(self.server)
        self.real, self.model = Store(self.pool, "test"), Store(self.twin, "test")  # type: ignore[arg-type]
        self.ids: list[UUID] = []
        self.workers: list[UUID] = []
        self.runs: list[tuple[Run, Run]] = []  # of the real store, and of the model
        self.accepted: set[tuple[UUID, int]] = set()
        self.judged = 0
        self._do(self.database.execute(f"TRUNCATE {TABLES} RESTART IDENTITY"))

    def _do(self, work: Any) -> Any:
        return self.runner.run(work)

    def _both(self, call: Callable[[Store], Any]) -> tuple[Any, Any]:
        return tuple(self._do(_attempt(call(store))) for store in (self.real, self.model))  # type: ignore[return-value]

    def _alike(self, call: Callable[[Store], Any], *names: str) -> list[Any]:
        """Both answers, as the values of these columns, must be equal."""
        real, model = self._both(call)
        if isinstance(real, Exception) or isinstance(model, Exception):
            assert type(real) is type(model), f"{real!r} and {model!r}"
            return []
        found = [sorted([tuple(row[n] for n in names) for row in rows], key=repr) for rows in (real, model)]
        assert found[0] == found[1]
        return found[0]

    def _pick(self, places: Sequence[int]) -> list[UUID]:
        return list(dict.fromkeys(self.ids[place % len(self.ids)] for place in places))

    def _travel(self, column: str, ids: Sequence[UUID], value: str) -> None:
        """Time passes for these jobs alone: ``column`` is now ``value`` seconds from now."""
        self._do(
            self.database.execute(
                f"UPDATE jobs SET {column} = now() + make_interval(secs => $2) WHERE id = ANY ($1::uuid[])",
                ids,
                float(value),
            )
        )
        moment = self.server.now() + _seconds(float(value))  # the same for all of them, as in Postgres
        for id in ids:
            if id in self.server.jobs:
                setattr(self.server.jobs[id], column, moment)

    @initialize()
    def begin(self) -> None:
        self.register()
        self.register()
        self.enqueue(4, 5, None, 2, None)

    # ---- the way in -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.ids) < 12)
    @rule(
        count=st.integers(1, 4), priority=st.sampled_from([0, 5, 9]), delay=st.sampled_from([None, None, HOUR]),
        most=st.integers(1, 3), key=st.sampled_from([None, None, None, "a", "b"]),
    )  # fmt: skip
    def enqueue(self, count: int, priority: int, delay: float | None, most: int, key: str | None) -> None:
        jobs = [new_job(priority=priority, delay=delay, max_attempts=most) for _ in range(count)]
        jobs[0].unique_key = key
        self._do(self.real.add_queues(["default"]))
        real, _ = self._both(lambda store: store.insert_jobs(jobs))
        assert isinstance(real, Exception) == (jobs[0].id not in self.server.jobs)
        if not isinstance(real, Exception):
            self.ids += [job.id for job in jobs]

    # ---- runs -----------------------------------------------------------------------------------------------------------

    def _worker(self, who: int, honest: bool) -> UUID:
        """One that may claim, as far as there is one; or any."""
        alive = [w.id for w in self.server.workers.values() if w.state == "alive" and w.lease_until > self.server.now()]
        return (alive if honest and alive else self.workers)[who % len(alive if honest and alive else self.workers)]

    @rule(places=some, who=one, honest=st.booleans(), due=st.booleans())
    def claim(self, places: list[int], who: int, honest: bool, due: bool) -> None:
        if due:
            self._travel("run_at", self._pick(places), "-1")
        worker = self._worker(who, honest)
        self._keep(self._both(lambda store: store.claim_jobs(self._pick(places), worker, "default")))

    @rule(places=some, who=one, how=st.sampled_from(sorted(ENDS)))
    def run(self, places: list[int], who: int, how: str) -> None:
        """Claim and end, as usual."""
        self.claim(places, who, True, True)
        if self.runs:
            self.end(places[:2], how, True)

    @rule(places=some, who=one)
    def lose(self, places: list[int], who: int) -> None:
        """A process claims and is lost, its jobs run elsewhere, and then it says how its runs ended."""
        before = len(self.runs)
        self.claim(places, who, True, True)
        self.register()
        for run, _ in self.runs[before : before + 1]:
            self.worker(self.workers.index(run.worker), "lapse")
            self.mark_lost(len(self.workers) - 1)
            self.rescue(False)
            self.worker(self.workers.index(run.worker), "beat")
            self._end(self.runs[before : before + 1], "complete" if who % 2 else "fail")
            self.claim(places, len(self.workers) - 1, True, True)
            self._end(self.runs[before : before + 1], "fail" if who % 2 else "complete")

    @rule(places=some, who=one, how=st.sampled_from(["complete", "fail"]))
    def repeat(self, places: list[int], who: int, how: str) -> None:
        """A process hands runs back, claims the same jobs again, and says once more how the first runs ended."""
        before = len(self.runs)
        self.claim(places, who, True, True)
        first = self.runs[before:]
        if first:
            self._end(first, "release")
            self._keep(self._both(lambda s: s.claim_jobs([run.id for run, _ in first], first[0][0].worker, "default")))
            self._end(first, how)

    @rule(limit=st.integers(1, 3), who=one, honest=st.booleans())
    def claim_without_redis(self, limit: int, who: int, honest: bool) -> None:
        worker = self._worker(who, honest)

        async def take(store: Store) -> list[Run]:
            async with store.connection() as connection, connection.transaction():
                lanes = await store.find_due(connection, "default", limit)
                ids = [id for lane in lanes.values() for id in lane]
                return await store.claim_jobs(ids, worker, "default", connection)

        self._keep(self._both(take))

    def _keep(self, runs: tuple[list[Run], list[Run]]) -> None:
        real, model = (sorted(found, key=lambda run: run.id) for found in runs)
        assert [(r.id, r.attempt, r.rescues, r.worker) for r in real] == [
            (r.id, r.attempt, r.rescues, r.worker) for r in model
        ]
        self.runs += zip(real, model, strict=True)

    @precondition(lambda self: self.runs)
    @rule(places=some, how=st.sampled_from(sorted(ENDS)), newest=st.booleans(), twice=st.booleans())
    def end(self, places: list[int], how: str, newest: bool, twice: bool = False) -> None:
        """Of any run there ever was, some of them twice: only the open one's ending may be accepted."""
        runs = [self.runs[-1 - place % len(self.runs) if newest else place % len(self.runs)] for place in places]
        runs = list({id(pair): pair for pair in runs}.values())
        self._end([*runs, *runs[:1]] if twice else runs, how)

    def _end(self, runs: list[tuple[Run, Run]], how: str) -> None:
        real, model = ([ENDS[how](pair[side]) for pair in runs] for side in (0, 1))
        if how == "complete":
            accepted = [self._do(self.real.complete_jobs(real)), self._do(self.model.complete_jobs(model))]
        else:
            rows = [self._do(self.real.end_runs(real)), self._do(self.model.end_runs(model))]
            accepted = [{(id, row["status"]) for id, row in found.items()} for found in rows]
        assert accepted[0] == accepted[1]
        ids = {entry if how == "complete" else entry[0] for entry in accepted[0]}
        for run in {id(run): run for run, _ in runs}.values():
            if run.id in ids and self._last_run_of(run.id) is run:
                assert (run.id, run.run_epoch) not in self.accepted
                self.accepted.add((run.id, run.run_epoch))
        assert self._verdicts(self.real, real) == self._verdicts(self.model, model)

    def _last_run_of(self, id: UUID) -> Run:
        return next(run for run, _ in reversed(self.runs) if run.id == id)

    def _verdicts(self, store: Store, changes: list[Change]) -> list[str]:
        return [self._do(store.read_endings([change]))[change.run.id] for change in changes]

    # ---- processes ------------------------------------------------------------------------------------------------------

    @rule()
    def register(self) -> None:
        self.workers.append(uuid7())
        self._statement("register_worker", self.workers[-1], "host", 1, "0", 10, ["noop"], HOUR)

    def _statement(self, name: str, *args: Any) -> tuple[list[Any], list[Any]]:
        return self._do(self.database.fetch(SQL[name], *args)), self._do(self.twin.fetch(SQL[name], *args))

    @rule(who=one, what=st.sampled_from(["lapse", "lapse", "beat", "stopped", "draining"]))
    def worker(self, who: int, what: str) -> None:
        worker = self.workers[who % len(self.workers)]
        if what == "beat":
            real, model = self._statement("beat", worker, HOUR, 0)
            assert [row["alive"] for row in real] == [row["alive"] for row in model]
        elif what == "lapse":
            self._do(
                self.database.execute("UPDATE workers SET lease_until = now() - interval '1 s' WHERE id = $1", worker)
            )
            self.server.workers[worker].lease_until = START
        else:
            self._both(lambda store: store.set_worker_state(worker, what))

    @rule(who=one)
    def mark_lost(self, who: int) -> None:
        real, model = self._both(lambda store: store.mark_lost(self.workers[who % len(self.workers)]))
        assert set(real) == set(model)

    @rule(orphans=st.booleans())
    def rescue(self, orphans: bool) -> None:
        found = self._both(lambda store: store.find_lost_runs(orphans=orphans))
        real, model = ({run.id: run for run in runs} for runs in found)
        assert real.keys() == model.keys()
        rows = [
            self._do(store.end_runs([lifecycle.lose(run) for run in runs.values()], revoke=True))
            for store, runs in ((self.real, real), (self.model, model))
        ]
        assert {id: row["status"] for id, row in rows[0].items()} == {id: row["status"] for id, row in rows[1].items()}

    @rule()
    def audit(self) -> None:
        real, model = self._statement("audit_runs", self.workers)
        assert {(r["id"], r["cancel_requested"]) for r in real} == {(r["id"], r["cancel_requested"]) for r in model}

    # ---- people and time ------------------------------------------------------------------------------------------------

    @rule(places=few, running=st.booleans())
    def cancel(self, places: list[int], running: bool) -> None:
        ids = self._pick(places)
        self._alike(lambda store: store.cancel_jobs(ids, "no more", running=running), "id", "before")

    @rule(places=few)
    def discard(self, places: list[int]) -> None:
        self._alike(lambda store: store.discard_jobs(self._pick(places)), "id", "before")

    @rule(place=one)
    def delete(self, place: int) -> None:
        """Another takes its place, so that the game goes on."""
        for id, _ in self._alike(lambda store: store.delete_jobs(self._pick([place])), "id", "before"):
            self.ids.remove(id)
            self.enqueue(1, 0, None, 2, None)

    @rule(places=some)
    def retry(self, places: list[int]) -> None:
        """Of dead letters among others, as the dead-letter queue does. A unique_key may be taken meanwhile: none is moved."""

        async def go(store: Store) -> Any:
            async with store.connection() as connection, connection.transaction():
                return await store.retry_jobs(connection, self._pick(places))

        self._alike(go, "id", "before")

    @rule(places=some)
    def fall_due(self, places: list[int]) -> None:
        self._travel("run_at", self._pick(places), "-1")

    @rule(places=few)
    def expire(self, places: list[int]) -> None:
        self._travel("expires_at", self._pick(places), "-1")
        self._alike(lambda store: store.expire_jobs(100), "id", "before")

    @rule()
    def sweep(self) -> None:
        lanes = dict.fromkeys(range(10))
        real, model = self._both(lambda store: store.page_lanes("default", lanes, 100))
        assert ids_of(real) == ids_of(model)

    @rule()
    def fold(self) -> None:
        self._do(self.real.fold_counters())

    # ---- after every call -----------------------------------------------------------------------------------------------

    @invariant()
    def both_look_alike(self) -> None:
        rows = self._do(self.database.fetch(SEEN))
        server = self.server
        assert {tuple(row) for row in rows} == {_seen(row) for row in (*server.jobs.values(), *server.done.values())}
        history: dict[UUID, list[Any]] = {}
        for row in self._do(
            self.database.fetch("SELECT job_id, worker, outcome FROM job_attempts ORDER BY job_id, run_epoch")
        ):
            history.setdefault(row["job_id"], []).append((row["worker"], row["outcome"]))
        kept = (*server.jobs.values(), *server.done.values())
        assert history == {r.id: [r.history[epoch] for epoch in sorted(r.history)] for r in kept if r.history}
        self.rules_.check_all(server)

    @invariant()
    def moves_are_legal_and_epochs_rise(self) -> None:
        rows = self._do(self.database.fetch("SELECT * FROM oracle WHERE n > $1 ORDER BY n", self.judged))
        for row in rows:
            self.judged = row["n"]
            if row["before"] not in (None, row["after"]) and row["after"]:
                assert row["after"] in MOVES[Status(row["before"])].values(), dict(row)
            if row["before"] is not None:
                assert row["epoch_after"] >= row["epoch_before"]
            if row["before"] not in (None, "processing") and row["after"] == "processing":
                assert row["epoch_after"] > row["epoch_before"]

    @invariant()
    def counters_are_exact(self) -> None:
        counted = {(row["queue"], row["status"]): row["n"] for row in self._do(self.database.fetch(oracle.COUNTED))}
        assert counted == self._do(real_counts(self.database))


def _seen(row: Any) -> tuple[Any, ...]:
    live = row.status != Status.COMPLETED
    asked, reason = (row.cancel_requested_at is not None, row.cancel_reason) if live else (None, None)
    return (row.id, row.status, row.attempt, row.rescues, row.locked_by, asked, reason, row.error_type, row.unique_key)


def _seconds(value: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=value)


async def _attempt(work: Any) -> Any:
    try:
        return await work
    except asyncpg.UniqueViolationError as error:
        return error


def run_machine(url: str, *, examples: int, steps: int, phases: Sequence[Phase] = tuple(Phase)) -> None:
    """Play ``examples`` games of so many calls."""
    with asyncio.Runner() as runner:
        database = runner.run(asyncpg.connect(url, ssl=False))
        pool = runner.run(_open(url))
        with suppress(asyncpg.DuplicateTableError):
            runner.run(oracle.install(database))
        try:
            machine = type("Machine", (Twins,), {"runner": runner, "database": database, "pool": pool})
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=examples, stateful_step_count=steps, deadline=None, database=None, phases=phases,
                    derandomize=not EXAMPLES, suppress_health_check=list(HealthCheck), print_blob=False,
                    report_multiple_bugs=False,
                ),
            )  # fmt: skip
        finally:
            runner.run(pool.close())
            runner.run(database.close())


async def _open(url: str) -> Pool:
    return Pool(url, shares={"test": 2})


def test_the_statements_and_the_model_answer_alike(database_url: str) -> None:
    run_machine(database_url, examples=EXAMPLES or 20, steps=40)


BROKEN = {
    "an ending is accepted whatever its epoch": ("complete_jobs", "AND j.run_epoch = e.run_epoch", ""),
    "an ending is accepted from any worker's old run": (
        "end_runs",
        "AND j.run_epoch = e.run_epoch AND j.locked_by = e.worker",
        "",
    ),
    "a claim takes jobs in any state": ("claim_jobs", "j.status || '' IN ({open}) AND", ""),
    "a claim keeps the epoch": ("claim_jobs", "greatest(j.run_epoch + 1,", "greatest(j.run_epoch, 0 *"),
    "a claim asks for no lease": ("claim_jobs", "AND w.lease_until > clock_timestamp()", ""),
    "a beat revives the lost": ("beat", "AND state IN ('alive', 'draining')", ""),
    "a rescue keeps the epoch": ("end_runs", "CASE WHEN $14 THEN j.run_epoch + 1", "CASE WHEN $14 THEN j.run_epoch"),
    "a retry counts nothing": (
        "retry_jobs",
        "SELECT queue, status, {pending}, count(*)",
        "SELECT queue, status, status, count(*)",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_statement_is_found(case: str, database_url: str) -> None:
    name, old, new = BROKEN[case]
    words = lifecycle.WORDS
    for word, value in words.items():
        old, new = old.replace("{" + word + "}", value), new.replace("{" + word + "}", value)
    assert old in SQL[name]
    with patch.dict(SQL, {name: SQL[name].replace(old, new)}), pytest.raises(BaseException) as caught:  # noqa: PT011
        run_machine(database_url, examples=60, steps=40, phases=[Phase.generate])
    assert isinstance(caught.value, AssertionError | asyncpg.PostgresError), repr(caught.value)
