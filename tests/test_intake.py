"""One job for one request, however often it is sent and over however many processes; bad neighbours harm nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from jobflow import intake as intake_module
from jobflow import lifecycle
from jobflow.errors import (
    AnswerLost,
    Conflict,
    Invalid,
    KeyInFlight,
    KeyReused,
    StoreUnavailable,
    UniqueConflict,
)
from jobflow.intake import LOCKS, Intake, Submission, Submitted, _groups
from jobflow.lifecycle import NewJob, Status
from jobflow.pool import Connection, Pool
from jobflow.store import Store
from tests.support.proxy import proxied
from tests.support.rows import add_job, ago, new_job, real_counts, row_of, run_of, status_of
from tests.support.waiting import until

PATIENCE = intake_module.PATIENCE


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused only because a machine is busy proves nothing here; who tests patience sets it."""
    monkeypatch.setattr(intake_module, "PATIENCE", 20.0)
    monkeypatch.setattr(intake_module, "SETTLE", 20.0)


@asynccontextmanager
async def intake_at(database_url: str) -> AsyncIterator[Intake]:
    """An Intake with a pool of its own, as another process has."""
    pool = Pool(database_url, shares={"test": 4})
    intake = Intake(Store(pool, "test"))
    try:
        yield intake
    finally:
        await intake.close()
        await pool.close()


@pytest.fixture
async def intake(store: Store) -> AsyncIterator[Intake]:
    intake = Intake(store)
    yield intake
    await intake.close()


def ask(*jobs: NewJob, key: str | None = None, fingerprint: bytes = b"f") -> Submission:
    return Submission(jobs=jobs or (new_job(),), key=key, fingerprint=fingerprint)


def unique(key: str, on_conflict: str = "reject", **changes: Any) -> NewJob:
    return new_job(unique_key=key, on_conflict=on_conflict, **changes)


async def answers(intake: Intake, *submissions: Submission) -> list[Any]:
    """What became of submissions that arrive together, errors included."""
    return list(await asyncio.gather(*(intake.submit(s) for s in submissions), return_exceptions=True))


async def count(database: Connection) -> int:
    return sum((await real_counts(database)).values())


async def keys(database: Connection) -> int:
    number: int = await database.fetchval("SELECT count(*) FROM idempotency_keys")
    return number


# ---- without keys ---------------------------------------------------------------------------------------------------


async def test_requests_that_arrive_together_share_a_commit(intake: Intake, database: Connection) -> None:
    await intake.submit(ask())
    submitted = await answers(intake, *(ask() for _ in range(100)))
    assert await count(database) == 101
    assert all(isinstance(done, Submitted) and not done.replayed for done in submitted)
    commits = await database.fetchval("SELECT count(DISTINCT created_at) FROM jobs")
    assert commits <= 4
    created = {(await row_of(database, done.jobs[0].id) or {})["created_at"] for done in submitted}
    assert {done.created_at for done in submitted} == created


async def test_the_queue_of_a_job_exists_from_then_on(intake: Intake, store: Store) -> None:
    await intake.submit(ask(new_job(queue="a"), new_job(queue="b")))
    await intake.submit(ask(new_job(queue="c")))
    assert await store.list_queues() == {"a": False, "b": False, "c": False}


@pytest.mark.parametrize("bad", [b'{"a": "\\u0000"}', b'{"a": 1e400000}', b'{"a": "\\ud800"}', b"{"])
async def test_a_row_that_postgres_does_not_take_refuses_only_itself(
    intake: Intake, database: Connection, bad: bytes
) -> None:
    plain = [ask(new_job(payload=bad if n == 3 else b"{}")) for n in range(7)]
    keyed = [ask(new_job(payload=bad if n == 3 else b"{}"), key=f"k{n}") for n in range(7)]
    bulk = [ask(new_job(), new_job(payload=bad), new_job())]
    found = await answers(intake, *plain, *keyed, *bulk)
    assert [Invalid if n in (3, 10, 14) else Submitted for n in range(15)] == [type(answer) for answer in found]
    assert await count(database) == 12
    assert await keys(database) == 6
    # The key of the refused request may be used for the mended one.
    mended = await intake.submit(ask(key="k3", fingerprint=b"mended"))
    assert not mended.replayed


async def test_a_big_request_is_one_transaction(intake: Intake, database: Connection) -> None:
    jobs = [new_job() for _ in range(2_500)]
    done = await intake.submit(ask(*jobs))
    assert [job.id for job in jobs] == [job.id for job in done.jobs]
    assert await database.fetchval("SELECT count(DISTINCT created_at) FROM jobs") == 1
    assert await count(database) == 2_500
    with pytest.raises(Invalid):
        await intake.submit(ask(*(new_job(payload=b"{" if n == 2_400 else b"{}") for n in range(2_500))))
    assert await count(database) == 2_500


# ---- Idempotency-Key ------------------------------------------------------------------------------------------------


async def test_fifty_at_once_with_one_key_over_three_processes_make_one_job(
    database_url: str, database: Connection
) -> None:
    async with AsyncExitStack() as stack:
        intakes = [await stack.enter_async_context(intake_at(database_url)) for _ in range(3)]
        found = await asyncio.gather(*(intakes[n % 3].submit(ask(key="k")) for n in range(50)))
    assert await count(database) == 1
    assert await keys(database) == 1
    assert len({(done.jobs[0].id, done.created_at) for done in found}) == 1
    assert sorted(done.replayed for done in found) == [False] + [True] * 49
    row = await row_of(database, found[0].jobs[0].id) or {}
    assert found[0].created_at == row["created_at"]


async def test_many_overlapping_keys_over_three_processes_make_one_job_each(
    database_url: str, database: Connection
) -> None:
    async with AsyncExitStack() as stack:
        intakes = [await stack.enter_async_context(intake_at(database_url)) for _ in range(3)]
        names = [f"k{n * 7 % 60}" for n in range(300)]
        found = await asyncio.gather(*(intakes[n % 3].submit(ask(key=name)) for n, name in enumerate(names)))
    ids: dict[str, set[UUID]] = {}
    for name, done in zip(names, found, strict=True):
        ids.setdefault(name, set()).add(done.jobs[0].id)
    assert dict.fromkeys(names, 1) == {name: len(found) for name, found in ids.items()}
    assert await count(database) == 60


async def test_a_replay_is_the_first_answer_even_when_the_job_is_gone(
    intake: Intake, store: Store, database: Connection
) -> None:
    first = await intake.submit(ask(new_job(), new_job(), key="k"))
    await store.delete_jobs([job.id for job in first.jobs])
    again = await intake.submit(ask(new_job(), new_job(), key="k"))
    assert ([job.id for job in first.jobs], first.created_at, True) == (
        *([job.id for job in again.jobs], again.created_at, again.replayed),
    )
    assert await count(database) == 0


async def test_a_key_with_another_body_is_refused_in_the_same_batch_and_later(
    intake: Intake, database: Connection
) -> None:
    together = await answers(intake, ask(key="k", fingerprint=b"one"), ask(key="k", fingerprint=b"two"))
    assert {Submitted, KeyReused} == {type(answer) for answer in together}
    with pytest.raises(KeyReused):
        await intake.submit(ask(key="k", fingerprint=b"three"))
    assert await count(database) == 1


async def hold(connection: Connection, name: str) -> None:
    """Lock a name as another process does that works on it."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", name)


async def test_a_key_in_flight_elsewhere_is_refused_after_two_seconds_and_stops_nobody(
    intake: Intake, database: Connection, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.transaction():
        await hold(database, "i0\x1fheld")
        held = asyncio.create_task(intake.submit(ask(key="held")))
        await asyncio.sleep(0)
        neighbours = await answers(intake, *(ask(key=f"k{n}") for n in range(20)), ask())
        assert not held.done()
        assert [Submitted] * 21 == [type(answer) for answer in neighbours]
        held.cancel()
        monkeypatch.setattr(intake_module, "PATIENCE", PATIENCE)
        began = time.monotonic()
        with pytest.raises(KeyInFlight):
            await intake.submit(ask(key="held"))
        assert 1.9 <= time.monotonic() - began < 20
    assert await count(database) == 21


async def test_who_waits_for_a_key_in_flight_replays_its_answer(intake: Intake, database: Connection) -> None:
    job = await add_job(database)
    async with database.transaction():
        await hold(database, "i0\x1fk")
        waiting = asyncio.create_task(intake.submit(ask(key="k")))
        # The first request commits its key while the second one waits for the lock: it has to read after locking.
        await database.execute(
            "INSERT INTO idempotency_keys VALUES (0, 'k', 'f', ARRAY[$1::uuid], now(), now() + interval '1 h')", job
        )
        await asyncio.sleep(0)
    done = await waiting
    assert ([job], True) == ([j.id for j in done.jobs], done.replayed)
    assert await count(database) == 1


@pytest.mark.parametrize("kind", ["key", "unique_key"])
async def test_what_another_process_commits_just_before_the_lock_is_got_is_seen(
    intake: Intake, database_url: str, database: Connection, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A read from before the lock would be stale."""

    def request() -> Submission:
        return ask(key="k") if kind == "key" else ask(unique("k"))

    real = Store.try_locks
    others: list[Submitted] = []

    async def late(self: Store, connection: Connection, names: Sequence[str]) -> set[str]:
        if not others:
            monkeypatch.setattr(Store, "try_locks", real)
            others.append(await other.submit(request()))
        return await real(self, connection, names)

    async with intake_at(database_url) as other:
        monkeypatch.setattr(Store, "try_locks", late)
        if kind == "key":
            done = await intake.submit(request())
            assert (done.replayed, done.jobs[0].id) == (True, others[0].jobs[0].id)
        else:
            with pytest.raises(UniqueConflict):
                await intake.submit(request())
    assert len(others) == await count(database) == 1


async def test_a_key_that_has_expired_is_used_anew(intake: Intake, database: Connection) -> None:
    first = await intake.submit(ask(key="k"))
    kept = await database.fetchval("SELECT expires_at - created_at FROM idempotency_keys")
    assert timedelta(hours=24) == kept
    await database.execute("UPDATE idempotency_keys SET expires_at = now() - interval '1 s'")
    second = await intake.submit(ask(key="k", fingerprint=b"other"))
    assert (second.replayed, await count(database)) == (False, 2)
    third = await intake.submit(ask(key="k", fingerprint=b"other"))
    assert (True, second.jobs[0].id) == (third.replayed, third.jobs[0].id)
    assert first.jobs[0].id != second.jobs[0].id


async def test_a_key_and_a_unique_key_of_the_same_name_are_two_things(intake: Intake, database: Connection) -> None:
    found = await answers(intake, ask(key="k"), ask(unique("k")), ask(unique("k2"), key="k2"))
    assert [Submitted] * 3 == [type(answer) for answer in found]
    assert await count(database) == 3


# ---- unique_key -----------------------------------------------------------------------------------------------------


async def test_a_live_job_keeps_its_unique_key_and_an_ended_one_gives_it_up(
    intake: Intake, database: Connection
) -> None:
    refused = {}
    for status in Status:
        holder = await add_job(database, status, unique_key=status.value)
        answer = (await answers(intake, ask(unique(status.value))))[0]
        refused[status] = isinstance(answer, UniqueConflict)
        if isinstance(answer, UniqueConflict):
            assert {"holder": str(holder), "current_status": status.value} == answer.extra
    assert {status: status in lifecycle.LIVE for status in Status} == refused


async def test_the_live_holder_is_returned_when_asked_for(intake: Intake, database: Connection) -> None:
    holder = await add_job(database, "processing", unique_key="k")
    before = await row_of(database, holder)
    done = await intake.submit(ask(unique("k", "return"), new_job()))
    assert ([holder], frozenset({holder})) == ([done.jobs[0].id], done.existing)
    assert await status_of(database, done.jobs[1].id) == "pending"
    assert before == await row_of(database, holder)
    nobody = await intake.submit(ask(unique("free", "return")))
    assert frozenset() == nobody.existing
    assert await count(database) == 3


async def test_when_the_holder_is_returned_the_answer_has_a_time_and_its_replay_the_same(
    intake: Intake, database: Connection
) -> None:
    holder = await add_job(database, unique_key="k")
    await intake.submit(ask())  # connections are open
    first, second = await answers(intake, *(ask(unique("k", "return"), key="key") for _ in range(2)))
    third = await intake.submit(ask(unique("k", "return"), key="key"))
    assert [holder] * 3 == [done.jobs[0].id for done in (first, second, third)]
    assert [done.replayed for done in (first, second, third)] == [False, True, True]
    assert len({done.created_at for done in (first, second, third)}) == 1
    assert abs((third.created_at - datetime.now(UTC)).total_seconds()) < 30


async def test_a_holder_that_is_not_running_is_replaced(intake: Intake, database: Connection) -> None:
    replaced = {}
    for status in lifecycle.LIVE:
        holder = await add_job(database, status, unique_key=status.value)
        answer = (await answers(intake, ask(unique(status.value, "replace"))))[0]
        replaced[status] = (type(answer), await status_of(database, holder))
        if isinstance(answer, Submitted):
            row = await row_of(database, holder) or {}
            assert row["cancel_reason"] == "replaced by a newer job with its unique_key"
            assert await status_of(database, answer.jobs[0].id) == "pending"
    assert {
        status: (UniqueConflict, "processing") if status is Status.PROCESSING else (Submitted, "cancelled")
        for status in lifecycle.LIVE
    } == replaced


async def test_twins_in_one_request_are_refused_with_their_place(intake: Intake, database: Connection) -> None:
    for how in ("reject", "return", "replace"):
        with pytest.raises(Invalid) as caught:
            await intake.submit(ask(new_job(), unique("k", how), unique("k", how)))
        assert [fault.pointer for fault in caught.value.faults] == ["/jobs/2/unique_key"]
    assert await count(database) == 0


async def test_the_same_unique_key_twice_in_one_batch(intake: Intake, database: Connection) -> None:
    await intake.submit(ask(unique("warm")))
    rejected = await answers(intake, ask(unique("a")), ask(unique("a")))
    assert [Submitted, UniqueConflict] == [type(answer) for answer in rejected]
    returned = await answers(intake, ask(unique("b", "return")), ask(unique("b", "return")))
    assert returned[0].jobs[0].id == returned[1].jobs[0].id
    assert [frozenset(), {returned[0].jobs[0].id}] == [done.existing for done in returned]
    replacing = await answers(intake, *(ask(unique("c", "replace")) for _ in range(3)))
    assert [Submitted] * 3 == [type(answer) for answer in replacing]
    statuses = [await status_of(database, done.jobs[0].id) for done in replacing]
    assert statuses == ["cancelled", "cancelled", "pending"]


async def test_many_replacers_over_three_processes_leave_one_live_job(database_url: str, database: Connection) -> None:
    async with AsyncExitStack() as stack:
        intakes = [await stack.enter_async_context(intake_at(database_url)) for _ in range(3)]
        found = await asyncio.gather(*(intakes[n % 3].submit(ask(unique("k", "replace"))) for n in range(30)))
    assert len({done.jobs[0].id for done in found}) == 30
    assert await real_counts(database) == {("default", "pending"): 1, ("default", "cancelled"): 29}


async def test_a_request_refused_for_its_unique_key_stores_no_idempotency_key(
    intake: Intake, database: Connection
) -> None:
    holder = await add_job(database, unique_key="k")
    for _ in range(2):
        with pytest.raises(UniqueConflict):
            await intake.submit(ask(new_job(), unique("k"), key="key"))
    assert (await count(database), await keys(database)) == (1, 0)
    await database.execute("DELETE FROM jobs WHERE id = $1", holder)
    assert not (await intake.submit(ask(new_job(), unique("k"), key="key"))).replayed
    assert (await count(database), await keys(database)) == (2, 1)


async def test_a_holder_that_is_claimed_meanwhile_is_not_replaced(intake: Intake, database: Connection) -> None:
    holder = await add_job(database, unique_key="k")
    async with database.transaction():
        await database.execute("UPDATE jobs SET status = 'processing', locked_by = $1 WHERE id = $2", uuid7(), holder)
        replacing = asyncio.create_task(intake.submit(ask(unique("k", "replace"))))
        await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
    with pytest.raises(UniqueConflict):
        await replacing
    assert await real_counts(database) == {("default", "processing"): 1}


async def test_two_thousand_unique_keys_in_one_request(intake: Intake, database: Connection) -> None:
    jobs = [unique(f"k{n}") for n in range(2_000)]
    done = await intake.submit(ask(*jobs, key="bulk"))
    assert 2_000 == len(done.jobs) == await count(database)
    again = await intake.submit(ask(*(unique(f"k{n}") for n in range(2_000)), key="bulk"))
    assert (True, [job.id for job in jobs]) == (again.replayed, [job.id for job in again.jobs])
    with pytest.raises(UniqueConflict, match="k1999"):
        await intake.submit(ask(unique("free"), unique("k1999")))
    assert await count(database) == 2_000


async def test_very_many_keys_and_few_keys_wait_for_each_other(intake: Intake, database: Connection) -> None:
    for held, submission in {
        "SELECT pg_advisory_xact_lock_shared(hashtextextended('jobflow keys', 0))": ask(
            *(unique(f"a{n}") for n in range(LOCKS + 1))
        ),
        "SELECT pg_advisory_xact_lock(hashtextextended('jobflow keys', 0))": ask(unique("b")),
    }.items():
        async with database.transaction():
            await database.execute(held)
            waiting = asyncio.create_task(intake.submit(submission))
            assert not (await asyncio.wait({waiting}, timeout=0.2))[0]
        assert await waiting


def test_batches_keep_their_order_and_take_no_more_locks_than_there_are() -> None:
    def of(names: int) -> Submission:
        return ask(*(unique(str(uuid7())) for _ in range(names)))

    sizes = [1, 100, 155, 1, 256, 300, 1, 1]
    submissions = [of(size) for size in sizes]
    groups = _groups(submissions)
    assert [[len(s.jobs) for s in group] for group in groups] == [[1, 100, 155], [1], [256], [300], [1, 1]]
    assert submissions == [submission for group in groups for submission in group]


# ---- lost answers ---------------------------------------------------------------------------------------------------


def requests(kind: str) -> Sequence[Submission]:
    if kind == "plain":
        return [ask() for _ in range(5)]
    if kind == "bulk":
        return [ask(*(new_job() for _ in range(1_500)))]
    if kind == "keyed":
        return [ask(key=f"k{n}") for n in range(5)]
    return [ask(unique(f"u{n}")) for n in range(5)]


@pytest.mark.parametrize("kind", ["plain", "bulk", "keyed", "unique"])
@pytest.mark.parametrize("moment", ["first", "commit"])
async def test_a_lost_answer_never_makes_a_second_job(
    database_url: str, database: Connection, kind: str, moment: str
) -> None:
    """The link breaks when the first answer was lost, or that to the commit; with it all connections of the pool."""
    async with proxied(database_url) as proxy, intake_at(proxy.url) as intake:
        await answers(intake, ask(), ask(key="warm"), ask(new_job(), new_job()))  # connections and queues are there
        await database.execute("DELETE FROM jobs; DELETE FROM idempotency_keys")
        submissions = requests(kind)
        if moment == "commit":
            proxy.marker = b"SELECT 1" if kind == "plain" else b"COMMIT"
        proxy.dropping = moment == "first"
        pending = asyncio.gather(*(intake.submit(s) for s in submissions), return_exceptions=True)
        await asyncio.wait_for(proxy.dropped.wait(), 60)
        proxy.marker, proxy.dropping = None, False
        proxy.cut()
        found = await pending
        again = await asyncio.gather(*(intake.submit(s) for s in requests(kind)), return_exceptions=True)
    rows = {row["id"] for row in await database.fetch("SELECT id FROM jobs")}
    for submission, answer in zip(submissions, found, strict=True):
        ids = {job.id for job in submission.jobs}
        assert isinstance(answer, Submitted | StoreUnavailable), answer
        assert (ids & rows) == (ids if isinstance(answer, Submitted) else set())
    if moment == "commit":  # it was committed, and found when asked for
        assert [Submitted] * len(submissions) == [type(answer) for answer in found]
        if kind == "keyed":
            assert [done.jobs[0].id for done in found] == [done.jobs[0].id for done in again]
            assert {True} == {done.replayed for done in again}
        if kind == "unique":
            assert {UniqueConflict} == {type(answer) for answer in again}
    accepted = {job.id for answer in [*found, *again] if isinstance(answer, Submitted) for job in answer.jobs}
    assert accepted == rows  # nothing that nobody was told of


async def test_a_lost_answer_is_asked_about_and_not_sent_again_though_the_job_is_done_already(
    intake: Intake, store: Store, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job ran and moved away before the question: its primary key would not refuse a second insert."""
    insert = Store.insert_jobs
    calls = 0

    async def lose(self: Store, jobs: Sequence[NewJob], connection: Connection | None = None) -> datetime:
        nonlocal calls
        calls += 1
        await insert(self, jobs, connection)
        await database.execute(
            "UPDATE jobs SET status = 'processing', locked_by = $1, run_epoch = 1, attempt = 1", uuid7()
        )
        run = await run_of(database, jobs[0].id)
        await store.complete_jobs([lifecycle.complete(run, None)])
        raise AnswerLost("lost", 1)

    monkeypatch.setattr(Store, "insert_jobs", lose)
    done = await intake.submit(ask())
    assert (calls, await real_counts(database)) == (1, {("default", "completed"): 1})
    assert done.created_at == (await row_of(database, done.jobs[0].id) or {})["created_at"]


async def test_a_lost_answer_with_returned_holders_is_not_made_up(
    intake: Intake, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent holds ids that were not used: better no answer than a wrong one."""
    await add_job(database, unique_key="k")
    decide = Intake._decide

    async def lose(self: Intake, group: Sequence[Submission], connection: Connection) -> Any:
        await decide(self, group, connection)
        await connection.execute("COMMIT")
        raise AnswerLost("lost", 1)

    monkeypatch.setattr(Intake, "_decide", lose)
    with pytest.raises(StoreUnavailable):
        await intake.submit(ask(new_job(), unique("k", "return")))
    assert await count(database) == 2


async def test_when_nobody_can_tell_the_answer_is_unavailable(
    intake: Intake, monkeypatch: pytest.MonkeyPatch, database: Connection
) -> None:
    monkeypatch.setattr(intake_module, "SETTLE", 0.1)

    async def lose(self: Store, jobs: Sequence[NewJob], connection: Connection | None = None) -> datetime:
        raise AnswerLost("lost", 1)

    async def still_there(self: Store, backend: int) -> bool:
        return False

    monkeypatch.setattr(Store, "insert_jobs", lose)
    monkeypatch.setattr(Store, "end_backend", still_there)
    with pytest.raises(StoreUnavailable):
        await intake.submit(ask())


async def test_with_postgres_away_everybody_is_told_and_later_ones_are_taken(
    database_url: str, database: Connection
) -> None:
    async with proxied(database_url) as proxy, intake_at(proxy.url) as intake:
        await answers(intake, ask(), ask(key="warm"))
        proxy.cut()
        found = await answers(intake, ask(), ask(key="k"), ask(new_job(), new_job()))
        assert {True} == {isinstance(answer, Submitted | StoreUnavailable) for answer in found}
        later = await answers(intake, ask(), ask(key="k2"), ask(new_job(), new_job()))
        assert [Submitted] * 3 == [type(answer) for answer in later]


# ---- retry ----------------------------------------------------------------------------------------------------------


async def test_a_final_job_becomes_live_again_only_if_its_unique_key_is_free(
    intake: Intake, database: Connection
) -> None:
    dead = {
        "free": await add_job(database, "dead_letter", unique_key="free"),
        "taken": await add_job(database, "dead_letter", unique_key="taken"),
        "twin 1": await add_job(database, "cancelled", unique_key="twin"),
        "twin 2": await add_job(database, "dead_letter", unique_key="twin"),
        "plain": await add_job(database, "dead_letter"),
        "still live": await add_job(database, "failed", unique_key="live"),
        "running": await add_job(database, "processing"),
    }
    holder = await add_job(database, unique_key="taken")
    rows, refused = await intake.revive([*dead.values(), uuid7()])
    assert {dead[name] for name in ("free", "plain", "still live")} < {row["id"] for row in rows}
    twins = {dead["twin 1"], dead["twin 2"]}
    assert 1 == len(twins & {row["id"] for row in rows}) == len(twins & set(refused))
    assert {dead["taken"]} == set(refused) - twins
    assert {"holder": str(holder), "current_status": "pending"} == refused[dead["taken"]].extra
    assert all(isinstance(error, Conflict) for error in refused.values())
    assert await status_of(database, dead["running"]) == "processing"


async def test_two_processes_revive_jobs_with_one_unique_key_and_one_of_them_gets_it(
    database_url: str, database: Connection
) -> None:
    dead = [await add_job(database, "dead_letter", unique_key="k") for _ in range(8)]
    async with AsyncExitStack() as stack:
        intakes = [await stack.enter_async_context(intake_at(database_url)) for _ in range(2)]
        found = await asyncio.gather(*(intakes[n % 2].revive([id]) for n, id in enumerate(dead)))
    assert sum(len(rows) for rows, _ in found) == 1
    assert sum(len(refused) for _, refused in found) == 7
    assert await real_counts(database) == {("default", "pending"): 1, ("default", "dead_letter"): 7}


async def test_a_retry_waits_for_who_works_on_the_key_and_gives_up_after_a_while(
    intake: Intake, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "PATIENCE", 0.2)
    id = await add_job(database, "dead_letter", unique_key="k")
    async with database.transaction():
        await hold(database, "u0\x1fk")
        with pytest.raises(KeyInFlight):
            await intake.revive([id])
    assert await status_of(database, id) == "dead_letter"
    rows, _ = await intake.revive([id])
    assert [id] == [row["id"] for row in rows]
    assert (await row_of(database, id) or {})["run_at"] > ago(60)


async def test_a_lost_answer_is_asked_about_only_when_its_backend_has_ended(
    intake: Intake, store: Store, monkeypatch: pytest.MonkeyPatch, database: Connection
) -> None:
    """The lost statement is still at work: whoever looks now finds nothing, and would refuse what is committed later."""
    insert, sent = Store.insert_jobs, []

    async def lose(self: Store, jobs: Sequence[NewJob], connection: Connection | None = None) -> datetime:
        sent.extend(jobs)
        raise AnswerLost("lost", 1)

    async def ends_later(self: Store, backend: int) -> bool:
        if not await count(database):
            await insert(store, sent)
            return False
        return True

    monkeypatch.setattr(Store, "insert_jobs", lose)
    monkeypatch.setattr(Store, "end_backend", ends_later)
    assert [job.id for job in (await intake.submit(ask())).jobs] == [job.id for job in sent]
