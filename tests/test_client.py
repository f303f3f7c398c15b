"""What people may ask for: the answer, the state after it, what Redis learns of it and what is said about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from uuid_utils.compat import uuid7

from jobflow import client as client_module
from jobflow import lifecycle
from jobflow.broker import Broker, Entry
from jobflow.client import Client, DeadFilter, JobRequest, Submission, due_at
from jobflow.errors import Conflict, Invalid, NotFound, Pruned, StoreUnavailable, UniqueConflict
from jobflow.events import Event, Events, JobMoved, JobsEnqueued
from jobflow.intake import Intake
from jobflow.lifecycle import MOVES, Cause, Status
from jobflow.pool import Connection, Pool
from jobflow.pusher import Pusher
from jobflow.registry import Registry
from jobflow.store import Store, day_of
from tests.support.commands import free_port
from tests.support.rows import add_job, ago, id_of_day, new_job, real_counts, row_of, run_of, status_of
from tests.support.waiting import until

LATER = datetime.now(UTC) + timedelta(days=400)


class Mail(msgspec.Struct):
    to: str
    copies: Annotated[int, msgspec.Meta(ge=1)] = 1


@pytest.fixture
def registry() -> Registry:
    registry = Registry()

    @registry.job("mail", queue="mails", priority=2, timeout=12.5, max_attempts=7)
    async def mail(payload: Mail) -> None:
        pass

    return registry


class Parts:
    def __init__(self, store: Store, broker: Broker, registry: Registry) -> None:
        self.said: list[Event] = []
        events = Events()
        events.subscribe(self.said.extend)
        self.broker = broker
        self.client = Client(store, Intake(store), Pusher(broker), broker, registry, events)

    def enqueued(self) -> list[tuple[list[UUID], list[str]]]:
        return [(list(e.ids), list(e.types)) for e in self.said if isinstance(e, JobsEnqueued)]

    def moves(self) -> list[tuple[UUID, str, str, str]]:
        return [(e.id, e.action, e.before, e.after) for e in self.said if isinstance(e, JobMoved)]


@pytest.fixture
async def parts(store: Store, broker: Broker, registry: Registry) -> AsyncIterator[Parts]:
    parts = Parts(store, broker, registry)
    yield parts
    await parts.client.close()


@pytest.fixture
def client(parts: Parts) -> Client:
    return parts.client


async def lanes(broker: Broker, queue: str = "default") -> set[UUID]:
    """All ids Redis knows of a queue, taken out."""
    return set((await broker.pop(queue, LATER + timedelta(days=4_000), 1_000)).ids)


async def open_lanes(broker: Broker, queue: str = "default") -> None:
    for priority in range(10):
        await broker.fill(queue, priority, "", False, b"")


# ---- prepare --------------------------------------------------------------------------------------------------------


async def test_what_a_caller_leaves_out_comes_from_the_type(client: Client) -> None:
    cases: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
        ({"type": "mail", "payload": {"to": "x"}}, ("mails", 2, 7, 12.5)),
        ({"type": "nobody.knows"}, ("default", 5, 5, 300.0)),
        (
            {"type": "mail", "payload": {"to": "x"}, "queue": "q", "priority": 0, "max_attempts": 1, "timeout": 0.5},
            ("q", 0, 1, 0.5),
        ),
    ]
    for request, expected in cases:
        job = client.prepare(JobRequest(**request))
        assert expected == (job.queue, job.priority, job.max_attempts, job.timeout)
        assert (*(job.run_at, job.delay, job.expires_at, job.unique_key, job.on_conflict, job.tags),) == (
            None,
            None,
            None,
            None,
            "reject",
            (),
        )
        assert msgspec.json.decode(job.payload) == request.get("payload", {})


async def test_a_prepared_job_has_an_id_of_now_and_tags_once(client: Client) -> None:
    first, second = (client.prepare(JobRequest(type="t", tags=["b", "a", "b"], delay=0)) for _ in range(2))
    assert first.id.version == 7
    assert first.id < second.id
    assert day_of(first.id) in (
        int(datetime.now(UTC).timestamp()) // 86_400,
        int(datetime.now(UTC).timestamp() - 5) // 86_400,
    )
    assert (first.tags, first.delay, first.status) == (("b", "a"), None, Status.PENDING)


FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "run_at and delay": ({"run_at": LATER, "delay": 5}, ["/delay"]),
    "on_conflict without a key": ({"on_conflict": "replace"}, ["/on_conflict"]),
    "a deadline in the past": ({"expires_at": ago(1)}, ["/expires_at"]),
    "a deadline before run_at": ({"run_at": LATER, "expires_at": LATER - timedelta(seconds=1)}, ["/expires_at"]),
    "a deadline at run_at": ({"run_at": LATER, "expires_at": LATER}, ["/expires_at"]),
    "a deadline before the delay is over": ({"delay": 60, "expires_at": ago(-50)}, ["/expires_at"]),
    "a payload of another form": ({"payload": {}}, ["/payload/to"]),
    "a value out of bounds": ({"payload": {"to": "x", "copies": 0}}, ["/payload/copies"]),
    "several at once": (
        {"run_at": LATER, "delay": 5, "on_conflict": "return", "expires_at": ago(1), "payload": {"to": 1}},
        ["/delay", "/on_conflict", "/expires_at", "/payload/to"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_what_does_not_fit_is_refused_with_a_pointer_for_each_fault(client: Client, name: str) -> None:
    options, pointers = FAULTS[name]
    with pytest.raises(Invalid) as caught:
        client.prepare(JobRequest(**{"type": "mail", "payload": {"to": "x"}} | options))
    found = [fault.pointer for fault in caught.value.faults]
    assert [p.rpartition("/to")[0] or p for p in pointers] == [p.rpartition("/to")[0] or p for p in found]


async def test_a_deadline_after_the_start_is_fine(client: Client) -> None:
    for options in (
        {"expires_at": ago(-5)},
        {"delay": 5, "expires_at": ago(-60)},
        {"run_at": ago(50), "expires_at": ago(-5)},
    ):
        assert client.prepare(JobRequest(type="t", **options)).expires_at == options["expires_at"]  # type: ignore[arg-type]


# ---- submit ---------------------------------------------------------------------------------------------------------


async def test_requests_that_share_a_commit_are_announced_once_and_before_they_are_answered(
    client: Client, parts: Parts
) -> None:
    known = [await client.enqueue("any", queue=queue) for queue in ("a", "b")]  # no queue has to be looked up any more
    asked: list[asyncio.Task[UUID]] = []
    offered: list[tuple[str, int, int]] = []

    def offer(queue: str, entries: list[Entry]) -> bool:
        offered.append((queue, len(entries), sum(task.done() for task in asked)))
        return True

    client._pusher.offer = offer
    asked += [asyncio.create_task(client.enqueue("any", queue=queue)) for queue in ("a", "b", "a", "a")]
    ids = await asyncio.gather(*asked)
    assert offered == [("a", 3, 0), ("b", 1, 0)], "once for each queue, when nobody has an answer yet"
    assert [some for some, _ in parts.enqueued()] == [[id] for id in (*known, *ids)], "each request is told"


async def test_a_job_is_announced_though_its_caller_went_away(client: Client, store: Store, parts: Parts) -> None:
    await client.enqueue("any")  # the queue is known
    offered: list[Entry] = []
    client._pusher.offer = lambda queue, entries: bool(offered.extend(entries)) or True
    asked = asyncio.create_task(client.enqueue("any"))
    while not client._intake._plain._task:
        await asyncio.sleep(0)
    asked.cancel()
    async with asyncio.timeout(10):
        while not offered:
            await asyncio.sleep(0.001)
    assert asked.cancelled()
    assert await store.find_jobs([offered[0].id])


async def test_enqueue_commits_and_tells_redis_and_the_listeners(
    parts: Parts, client: Client, database: Connection
) -> None:
    await open_lanes(parts.broker, "mails")
    id = await client.enqueue("mail", {"to": "x"}, tags=["t"], delay=30)
    row = await row_of(database, id) or {}
    assert (*(row["type"], row["queue"], row["status"], row["priority"], row["tags"]),) == (
        "mail",
        "mails",
        "scheduled",
        2,
        ["t"],
    )
    assert [([id], ["mail"])] == parts.enqueued()
    await until(lambda: parts.broker.pop("mails", datetime.now(UTC), 5), lambda popped: popped.next_due is not None)
    popped = await parts.broker.pop("mails", datetime.now(UTC), 5)
    assert ([], row["run_at"]) == (
        popped.ids,
        popped.next_due,
    )  # the place in the lane is the row's, to the microsecond


@pytest.mark.parametrize(
    ("type", "payload", "options"),
    [
        ("bad type", {}, {}),
        ("t", {}, {"priority": 10}),
        ("t", {}, {"nonsense": 1}),
        ("t", {}, {"queue": "No"}),
        ("t", {"a": float("nan")}, {}),
        ("t", {"a": "\x00"}, {}),
        ("t", {"a": "\ud800"}, {}),
        ("t", {"a": 2**60}, {}),
        ("mail", {"to": 3}, {}),
    ],
)
async def test_enqueue_refuses_what_the_api_would_refuse(
    client: Client, database: Connection, type: str, payload: dict[str, Any], options: dict[str, Any]
) -> None:
    with pytest.raises(Invalid):
        await client.enqueue(type, payload, **options)
    assert await real_counts(database) == {}


async def test_a_replay_and_a_returned_holder_are_announced_to_nobody(
    parts: Parts, client: Client, database: Connection
) -> None:
    await open_lanes(parts.broker)
    holder = await add_job(database, unique_key="k")
    await client.submit(Submission(jobs=[new_job(unique_key="k", on_conflict="return")]))
    assert ([], set()) == (parts.said, await lanes(parts.broker))
    mixed = [new_job(unique_key="k", on_conflict="return"), new_job()]
    await client.submit(Submission(jobs=mixed, key="key"))
    assert [([mixed[1].id], ["noop"])] == parts.enqueued()
    await client.close()
    assert {mixed[1].id} == await lanes(parts.broker)
    again = await client.submit(Submission(jobs=[new_job(unique_key="k", on_conflict="return"), new_job()], key="key"))
    assert [holder, mixed[1].id] == [job.id for job in again.jobs]
    await client.close()
    assert (1, set()) == (len(parts.said), await lanes(parts.broker))


async def test_a_request_for_several_queues_reaches_each_of_them(parts: Parts, client: Client) -> None:
    jobs = [new_job(queue=queue) for queue in "abab"]
    for queue in "ab":
        await open_lanes(parts.broker, queue)
    await client.submit(Submission(jobs=jobs))
    await client.close()
    for queue in "ab":
        assert {job.id for job in jobs if job.queue == queue} == await lanes(parts.broker, queue)


async def test_the_place_in_the_lane_is_what_the_row_says(store: Store, database: Connection) -> None:
    jobs = [new_job(), new_job(run_at=ago(99)), new_job(run_at=LATER), new_job(delay=12.25), new_job(delay=0.1)]
    created_at = await store.insert_jobs(jobs)
    for job in jobs:
        assert (await row_of(database, job.id) or {})["run_at"] == due_at(job, created_at)


async def test_without_redis_everything_is_accepted(store: Store, registry: Registry, database: Connection) -> None:
    away = Broker(f"redis://127.0.0.1:{free_port()}/0", lane_size=10, pool_size=4)
    client = Parts(store, away, registry).client
    id = await client.enqueue("t")
    assert (await client.cancel(id)).status == "cancelled"
    assert (await client.retry(id)).status == "pending"
    await client.delete(id)
    await client.close()
    await away.close()
    assert await real_counts(database) == {}


# ---- one job --------------------------------------------------------------------------------------------------------

ONE_JOB = {"retry": Cause.RETRIED, "cancel": Cause.CANCELLED, "discard": Cause.DISCARDED}


@pytest.mark.parametrize("action", ONE_JOB)
async def test_each_action_answers_from_each_state(
    parts: Parts, client: Client, database: Connection, action: str
) -> None:
    cause = ONE_JOB[action]
    for status in Status:
        id = await add_job(database, status)
        parts.said.clear()
        before = await row_of(database, id)
        legal = cause in MOVES[status] and status is not Status.PROCESSING
        if legal:
            job = await getattr(client, action)(id)
            assert (id, MOVES[status][cause].value) == (job.id, job.status), status
            assert job.attempts == []
            assert [(id, cause.value, status.value, MOVES[status][cause].value)] == parts.moves()
        elif action == "cancel" and status is Status.CANCELLED:
            assert (await client.cancel(id, "again")).status == "cancelled"
            assert (before, []) == (await row_of(database, id), parts.said)
        elif action == "cancel" and status is Status.PROCESSING:
            for _ in range(2):
                job = await client.cancel(id)
                assert (job.status, job.cancel_requested) == ("processing", True)
            assert [(id, "cancel_requested", "processing", "processing")] == parts.moves()
        else:
            with pytest.raises(Conflict, match=status.value) as caught:
                await getattr(client, action)(id)
            assert {"current_status": status.value} == caught.value.extra
            assert (before, []) == (await row_of(database, id), parts.said)


async def test_delete_answers_from_each_state(parts: Parts, client: Client, database: Connection) -> None:
    for status in Status:
        id = await add_job(database, status)
        parts.said.clear()
        if status is Status.PROCESSING:
            with pytest.raises(Conflict) as caught:
                await client.delete(id)
            assert caught.value.extra == {"current_status": "processing"}
            assert await row_of(database, id)
        else:
            await client.delete(id)
            assert None is await row_of(database, id)
            assert [(id, "deleted", status.value, "")] == parts.moves()


@pytest.mark.parametrize("action", ["retry", "cancel", "discard", "delete"])
async def test_a_job_that_is_not_there_or_was_pruned_is_said_so(client: Client, store: Store, action: str) -> None:
    today = int(datetime.now(UTC).timestamp()) // 86_400
    await store.create_day(today)
    with pytest.raises(NotFound):
        await getattr(client, action)(uuid7())
    with pytest.raises(Pruned):
        await getattr(client, action)(id_of_day(today - 1))


async def test_redis_learns_of_a_retry_and_forgets_what_was_stopped(
    parts: Parts, client: Client, database: Connection
) -> None:
    await open_lanes(parts.broker)
    dead = await add_job(database, "dead_letter", priority=3)
    await client.retry(dead)
    await client.close()
    assert {dead} == await lanes(parts.broker)
    stopped = {name: await client.enqueue("t", priority=n) for n, name in enumerate(["cancel", "discard", "delete"])}
    kept = await client.enqueue("t")
    await client.close()
    for name, id in stopped.items():
        await getattr(client, name)(id)
    await client.close()
    assert {kept} == await lanes(parts.broker)


async def test_cancel_says_why(client: Client, database: Connection) -> None:
    first, second = await add_job(database), await add_job(database)
    assert (await client.cancel(first)).cancel_reason == "cancelled by a person"
    assert (await client.cancel(second, "too late")).cancel_reason == "too late"


async def test_retry_of_a_job_whose_unique_key_is_taken_is_a_conflict_that_names_the_holder(
    parts: Parts, client: Client, database: Connection
) -> None:
    dead = await add_job(database, "dead_letter", unique_key="k")
    holder = await add_job(database, "failed", unique_key="k")
    with pytest.raises(UniqueConflict, match=str(holder)) as caught:
        await client.retry(dead)
    assert {"holder": str(holder), "current_status": "failed"} == caught.value.extra
    assert (await status_of(database, dead), parts.said) == ("dead_letter", [])
    await client.discard(holder)
    assert (await client.retry(dead)).status == "pending"
    # Its own key is no obstacle for a job that lives already.
    live = await add_job(database, "failed", unique_key="own")
    assert (await client.retry(live)).status == "pending"


# ---- many -----------------------------------------------------------------------------------------------------------


async def test_an_empty_filter_is_refused_unless_everything_is_meant(client: Client, database: Connection) -> None:
    dead = [await add_job(database, "dead_letter") for _ in range(3)]
    others = [await add_job(database, status) for status in ("failed", "cancelled", "processing")]
    with pytest.raises(Invalid, match="all"):
        await client.retry_dead(DeadFilter())
    assert await client.retry_dead(DeadFilter(all=True)) == 3
    await client.close()
    assert [await status_of(database, id) for id in dead] == ["pending"] * 3
    assert [await status_of(database, id) for id in others] == ["failed", "cancelled", "processing"]


async def test_dead_jobs_are_retried_by_their_ids(parts: Parts, client: Client, database: Connection) -> None:
    await open_lanes(parts.broker)
    dead = [await add_job(database, "dead_letter") for _ in range(4)]
    other = await add_job(database, "cancelled")
    assert await client.retry_dead(DeadFilter(ids=[*dead[:3], other, uuid7()])) == 3
    await client.close()
    assert set(dead[:3]) == await lanes(parts.broker)
    assert [(id, "retried", "dead_letter", "pending") for id in sorted(dead[:3])] == sorted(parts.moves())
    assert (await status_of(database, dead[3]), await status_of(database, other)) == ("dead_letter", "cancelled")


async def test_dead_jobs_are_retried_by_a_filter(client: Client, database: Connection) -> None:
    young = ago(-3_000)
    cases: dict[str, tuple[DeadFilter, dict[str, Any]]] = {
        "type": (DeadFilter(type="mine"), {"type": "mine"}),
        "queue": (DeadFilter(queue="mine"), {"queue": "mine"}),
        "tag": (DeadFilter(tag="mine"), {"tags": ["x", "mine"]}),
        "error": (DeadFilter(error="MINE"), {"error_type": "E", "error_message": "it is mine"}),
        "after": (DeadFilter(created_after=young), {"created_at": young}),
        "before": (DeadFilter(created_before=ago(5_000)), {"created_at": ago(6_000)}),
    }
    for name, (wanted, columns) in cases.items():
        await database.execute("DELETE FROM jobs")
        hit = await add_job(database, "dead_letter", **columns)
        await add_job(database, "failed", **columns)
        await add_job(database, "dead_letter", error_type="E", error_message="other")
        assert await client.retry_dead(wanted) == 1, name
        await client.close()
        assert await status_of(database, hit) == "pending", name
        assert {
            status: sum(n for (_, s), n in (await real_counts(database)).items() if s == status)
            for status in ("pending", "failed", "dead_letter")
        } == {"pending": 1, "failed": 1, "dead_letter": 1}


async def test_a_redrive_of_many_goes_in_chunks_and_leaves_those_whose_key_is_taken(
    client: Client, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RETRY_CHUNK", 4)
    free = [await add_job(database, "dead_letter", unique_key=f"k{n}" if n % 3 == 0 else None) for n in range(11)]
    taken = await add_job(database, "dead_letter", unique_key="taken")
    await add_job(database, "processing", unique_key="taken")
    for wanted in (DeadFilter(all=True), DeadFilter(ids=[*free, taken])):
        assert await client.retry_dead(wanted) == 12
        await client.close()
        assert {"pending"} == {await status_of(database, id) for id in free}
        assert await status_of(database, taken) == "dead_letter"
        await database.execute("UPDATE jobs SET status = 'dead_letter', finished_at = now() WHERE id = ANY($1)", free)


async def test_a_redrive_ends_though_its_jobs_fail_again_at_once(
    client: Client, store: Store, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RETRY_CHUNK", 2)
    dead = [await add_job(database, "dead_letter", max_attempts=1) for _ in range(7)]
    retry = store.retry_jobs
    retried: list[UUID] = []

    async def and_fail(connection: Connection, ids: Any) -> Any:
        rows = await retry(connection, ids)
        retried.extend(row["id"] for row in rows)
        await connection.execute("UPDATE jobs SET status = 'dead_letter', finished_at = now() WHERE id = ANY($1)", ids)
        return rows

    monkeypatch.setattr(store, "retry_jobs", and_fail)
    await client.retry_dead(DeadFilter(all=True))
    await asyncio.wait_for(client.close(), 20)
    assert sorted(dead) == sorted(retried)


async def test_with_postgres_away_every_command_says_so(broker: Broker, registry: Registry) -> None:
    pool = Pool(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing", shares={"test": 2})
    client = Parts(Store(pool, "test"), broker, registry).client
    id = uuid7()
    for call in (
        client.enqueue("t"), client.retry(id), client.cancel(id), client.discard(id), client.delete(id),
        client.retry_dead(DeadFilter(all=True)), client.retry_dead(DeadFilter(ids=[id])),
    ):  # fmt: skip
        with pytest.raises(StoreUnavailable):
            await call
    await client.close()
    await pool.close()


async def test_a_completed_job_cannot_be_retried_and_the_answer_says_what_to_do(
    client: Client, store: Store, database: Connection
) -> None:
    run = await run_of(database, await add_job(database, "processing"))
    await store.complete_jobs([lifecycle.complete(run, None)])
    with pytest.raises(Conflict, match="submit a new job"):
        await client.retry(run.id)
