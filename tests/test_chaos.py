"""The harness that breaks everything must itself see what it looks for. The run as a whole is `./dev chaos`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from bench.chaos.judge import LOST, TWICE, WRONG, Verdict, judge
from bench.chaos.load import Load
from bench.chaos.pauses import Blow, pauses
from bench.chaos.proxy import Proxy, Trap
from bench.chaos.recovery import CLAIMS, Recovery, measure, overlap
from bench.chaos.schedule import KINDS, Fault, plan
from bench.chaos.wire import Statements
from bench.chaos.world import ORACLE, Death, World, with_port
from jobflow.pool import Connection
from tests.support.rows import add_job

# --- the schedule ---


def long_plan(seed: int) -> list[Fault]:
    return plan(seed, minutes=27, interval=5, apps=4)


def test_a_seed_gives_the_same_schedule_and_another_one_another() -> None:
    assert long_plan(7) == long_plan(7)
    assert long_plan(7) != long_plan(8)


def test_half_an_hour_holds_three_hundred_faults_of_every_kind() -> None:
    counts = Counter(fault.kind for fault in long_plan(1))
    assert counts.total() >= 300
    assert set(counts) == set(KINDS)
    assert {fault.kind for fault in plan(1, minutes=5.2, interval=5, apps=4)} == set(KINDS)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_hurt_is_left_alone_and_half_of_the_processes_always_are(seed: int) -> None:
    hurt: dict[object, float] = {}
    for fault in long_plan(seed):
        kind = KINDS[fault.kind]
        if kind.hurts in ("postgres", "redis"):
            assert hurt.get(kind.hurts, 0) <= fault.at
            hurt[kind.hurts] = fault.at + fault.seconds
        elif kind.hurts == "app":
            assert hurt.get(fault.victim, 0) <= fault.at
            hurt[fault.victim] = fault.at + fault.seconds
            assert sum(hurt.get(app, 0) > fault.at for app in range(4)) <= 2
        elif kind.hurts == "apps":
            assert not any(hurt.get(app, 0) > fault.at for app in range(4))


# --- the wire ---


def message(letter: bytes, body: bytes) -> bytes:
    return letter + (len(body) + 4).to_bytes(4, "big") + body


def test_statements_are_read_from_any_pieces_of_a_connection() -> None:
    sent = (
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # asks for TLS
        + b"\x00\x00\x00\x11\x00\x03\x00\x00user\0me\0\0"
        + message(b"p", b"secret")
        + message(b"P", b"first\0SELECT 1\0\0\0")
        + message(b"P", b"second\0SELECT 2\0\0\0")
        + message(b"Q", b"BEGIN;\0")
        + message(b"B", b"\0second\0rest")
        + message(b"E", b"\0\0\0\0\0")
        + message(b"S", b"")
        + message(b"Q", b"COMMIT;\0")
    )
    for size in (1, 7, len(sent)):
        statements, found, open = Statements(), [], []
        for start in range(0, len(sent), size):
            for text in statements.feed(sent[start : start + size]):
                found.append(text)
                open.append(statements.in_transaction)
        assert found == ["BEGIN;", "SELECT 2", "COMMIT;"]
        assert open == [True, True, False]


# --- the proxy ---


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    port = urlsplit(database_url).port
    assert port is not None
    proxy = Proxy(lambda: port, postgres=True)
    yield proxy
    await proxy.close()


@pytest.fixture
async def through(proxy: Proxy, database_url: str, database: Connection) -> AsyncIterator[Connection]:
    await database.execute("CREATE TABLE notes (n int)")
    connection = await asyncpg.connect(with_port(database_url, await proxy.start()))
    yield connection
    connection.terminate()


INSERT = "INSERT INTO notes VALUES ($1)"
NOTES = "SELECT array_agg(n ORDER BY n) FROM notes"


async def test_an_answer_is_lost_and_what_it_told_of_is_done(
    proxy: Proxy, through: Connection, database: Connection
) -> None:
    await through.execute(INSERT, 1)
    proxy.trap = trap = Trap(lambda text: text == INSERT, silent=False)
    assert await through.fetchval("SELECT 1") == 1
    assert not trap.sprung.is_set()
    with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
        await through.execute(INSERT, 2)
    assert trap.sprung.is_set()
    assert await database.fetchval(NOTES) == [1, 2]


async def test_inside_a_transaction_it_is_the_answer_to_the_commit(
    proxy: Proxy, through: Connection, database: Connection
) -> None:
    proxy.trap = trap = Trap(lambda text: text == INSERT, silent=False)
    transaction = through.transaction()
    await transaction.start()
    await through.execute(INSERT, 1)
    await transaction.rollback()
    assert not trap.sprung.is_set(), "what was rolled back is not waited for"
    transaction = through.transaction()
    await transaction.start()
    await through.execute(INSERT, 2)
    assert not trap.sprung.is_set()
    with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
        await transaction.commit()
    assert trap.sprung.is_set()
    assert await database.fetchval(NOTES) == [2]


async def test_a_long_answer_is_lost_when_it_is_complete(
    proxy: Proxy, through: Connection, database: Connection
) -> None:
    await database.execute("""
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (new.n = 3000) EXECUTE FUNCTION slow()
    """)
    many = "INSERT INTO notes SELECT n FROM generate_series(1, 3000) n RETURNING n"
    proxy.trap = Trap(lambda text: text == many, silent=False)
    with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
        await through.fetch(many)
    assert await database.fetchval("SELECT count(*) FROM notes") == 3000, "its first rows come before the commit"


async def test_a_silent_trap_leaves_the_connection_open(
    proxy: Proxy, through: Connection, database: Connection
) -> None:
    proxy.trap = trap = Trap(lambda text: text == INSERT, silent=True)
    waiting = asyncio.create_task(through.execute(INSERT, 1))
    await asyncio.wait_for(trap.sprung.wait(), 60)
    assert (await asyncio.wait({waiting}, timeout=0.3))[1] == {waiting}
    assert await database.fetchval(NOTES) == [1]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_proxy_holds_cuts_and_refuses(proxy: Proxy, through: Connection, database_url: str) -> None:
    proxy.hold()
    waiting = asyncio.create_task(through.fetchval("SELECT 1"))
    assert (await asyncio.wait({waiting}, timeout=0.2))[1] == {waiting}
    proxy.release()
    assert await waiting == 1
    proxy.cut()
    with pytest.raises((OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
        await through.fetchval("SELECT 1")
    nowhere = Proxy(lambda: 1, postgres=True)
    with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
        await asyncpg.connect(with_port(database_url, await nowhere.start()))
    await nowhere.close()


# --- the client ---


class Client:
    """A load whose requests end here: each takes the next of ``answers``."""

    def __init__(self, folder: Path, answers: list[httpx.Response | Exception]) -> None:
        folder.joinpath("run").mkdir()
        self.world = World(folder / "run", apps=3, lease=2)
        self.load = Load(self.world, jobs=1, seconds=1, seed=1, record=folder / "record")
        self.load._http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.answers = answers
        self.keys: list[str | None] = []
        self.ports: list[int | None] = []

    async def send(self, *payloads: dict[str, object], key: bool = True) -> None:
        jobs = [{"type": "x", "payload": payload} for payload in payloads]
        try:
            await (self.load.submit(jobs) if key else self.load._send_plain(jobs))
        finally:
            await self.load.close()

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.keys.append(request.headers.get("Idempotency-Key"))
        self.ports.append(request.url.port)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def accepted(*ids: str) -> httpx.Response:
    return httpx.Response(201, json={"jobs": [{"id": id} for id in ids]})


async def test_a_request_is_repeated_with_its_key_until_it_is_acknowledged(tmp_path: Path) -> None:
    client = Client(tmp_path, [httpx.ReadTimeout(""), httpx.Response(503), accepted("a", "b")])
    await client.send({}, {})
    assert client.keys == ["chaos-1"] * 3
    assert len(set(client.ports)) == 3, "another process each time"
    assert client.load.acknowledged == {1: "a", 2: "b"}
    assert client.world.surprises == []


async def test_a_request_without_a_key_is_sent_once(tmp_path: Path) -> None:
    client = Client(tmp_path, [httpx.ReadTimeout("")])
    await client.send({"n": 7}, key=False)
    assert (client.load.acknowledged, client.load.unknown) == ({}, {7})


async def test_wrong_answers_are_noted(tmp_path: Path) -> None:
    client = Client(tmp_path, [httpx.Response(500), accepted("a"), accepted("b")])
    client.load._chance.random = lambda: 0.0  # every request is sent to two processes at once
    await client.send({})
    first, second = client.world.surprises
    assert "500" in first
    assert "two answers for one key" in second


# --- recovery ---


@pytest.fixture
async def watched(database: Connection) -> Connection:
    await database.execute(ORACLE)
    return database


def test_spans_are_counted_once_where_they_overlap() -> None:
    assert overlap(10, 20, []) == 0
    assert overlap(10, 20, [(12, 15)]) == 3
    assert overlap(10, 20, [(14, 17), (12, 15), (12, 13)]) == 5
    assert overlap(10, 20, [(1, 11), (19, 30)]) == 2
    assert overlap(10, 20, [(1, 4), (30, 40)]) == 0


def test_a_recovery_is_a_first_rescue_of_what_ran_when_its_process_died() -> None:
    worker, other, job = uuid4(), uuid4(), uuid4()
    workers = [{"id": worker, "pid": 5, "started_at": 1.0}, {"id": other, "pid": 6, "started_at": 1.0}]
    claim = {
        "id": job, "locked_by": worker, "at": 9.0, "next": "pending", "rise": 1, "ended_at": 25.0, "waiting": 1,
        "second": "processing", "second_at": 26.0,
    }  # fmt: skip
    deaths = [Death(5, 10.0)]
    (found,) = measure(deaths, workers, [claim], [(11.0, 14.0)])
    assert found == Recovery(seconds=13.0, raw=16.0, queued=False, id=job, pid=5)
    (found,) = measure(deaths, workers, [claim | {"waiting": 10_000}], [(11.0, 14.0)])
    assert found == Recovery(seconds=12.0, raw=16.0, queued=True, id=job, pid=5)
    for change in (
        {"locked_by": other},  # its process lives
        {"ended_at": 9.5},  # it had ended before
        {"at": 10.5},  # the number of the process was used again
        {"rise": 0},  # the process ended it by itself
        {"next": "scheduled"},  # a second rescue
        {"second": "completed"},
    ):
        assert measure(deaths, workers, [claim | change]) == [], change


def test_a_pause_is_the_longest_span_without_a_claim_around_a_fault() -> None:
    claims = [0.0, 1.0, 2.0, 5.0, 6.0, 13.0, 14.0, 30.0, 31.0, 90.0]
    assert pauses([Blow("a", 0.5, 1.0)], claims) == {"a": 4.5}  # from 6 to the end of the look at 10.5
    assert pauses([Blow("a", 0.5, 12.9)], claims) == {"a": pytest.approx(6.9)}
    assert pauses([Blow("a", 0, 0), Blow("a", 21, 21), Blow("a", 60, 80), Blow("b", 60, 80)], claims) == {
        "a": 9,
        "b": 20,
    }


async def test_claims_of_the_dead_are_told_with_what_came_next(watched: Connection) -> None:
    dead, living, job, other = uuid4(), uuid4(), uuid4(), uuid4()
    moves = [
        (job, None, "pending", 0, 0, None),
        (job, "pending", "processing", 0, 7, dead),
        (other, None, "pending", 0, 0, None),
        (job, "processing", "pending", 7, 8, dead),
        (job, "pending", "processing", 8, 9, living),
        (job, "processing", "completed", 9, 9, living),
    ]
    insert = (
        "INSERT INTO oracle (id, before, after, epoch_before, epoch_after, locked_by) VALUES ($1, $2, $3, $4, $5, $6)"
    )
    await watched.executemany(insert, moves)
    (claim,) = await watched.fetch(CLAIMS, [dead])
    told = (claim["id"], claim["next"], claim["rise"], claim["waiting"], claim["second"])
    assert told == (job, "pending", 1, 2, "processing")
    assert claim["at"] <= claim["ended_at"] <= claim["second_at"]


# --- the verdict ---

MOVE = "INSERT INTO oracle (id, before, after, epoch_before, epoch_after) VALUES ($1, $2, $3, $4, $5)"


async def done(database: Connection, n: int, folder: Path, times: int = 1) -> UUID:
    """A job that went its way, and the lines its handler left."""
    id = await add_job(database, "completed", payload=f'{{"n": {n}}}')
    for move in (("pending", "processing", 0, 7), ("processing", "completed", 7, 7)):
        await database.execute(MOVE, id, *move)
    with (folder / "1.effects").open("a") as file:
        file.write(f"{id} 1 0.0 chaos.note\n" * times)
    return id


async def test_a_good_run_has_no_mistakes_and_extra_executions_are_counted(watched: Connection, tmp_path: Path) -> None:
    acknowledged = {n: str(await done(watched, n, tmp_path, times=n)) for n in (1, 2, 3)}
    verdict = await judge(watched, acknowledged, effects=tmp_path)
    assert verdict == Verdict(3, 0, 0, 3, {"completed": 3}, 0, 0, [], {}, {}, [])


@pytest.mark.parametrize("mistake", [*LOST, *TWICE, *WRONG])
async def test_the_verdict_sees_every_mistake(mistake: str, watched: Connection, tmp_path: Path) -> None:
    id = await done(watched, 1, tmp_path)
    acknowledged = {1: str(id)}
    match mistake:
        case "acknowledged, and not there":
            acknowledged[2] = str(uuid4())
        case "acknowledged, and under another number":
            acknowledged = {2: str(id)}
        case "not final":
            await add_job(watched, "failed", payload='{"n": 2}')
        case "completed, and no handler has run":
            (tmp_path / "1.effects").write_text("")
        case "ended for good twice":
            await watched.execute(MOVE, id, "processing", "completed", 8, 8)
        case "there twice":
            await add_job(watched, "dead_letter", id=id, payload='{"n": 1}')
        case "two jobs for one request":
            await done(watched, 1, tmp_path)
        case "one fencing token, two runs":
            await watched.execute(MOVE, id, "pending", "processing", 0, 7)
        case "moved after its end":
            await watched.execute(MOVE, id, "completed", "pending", 7, 7)
        case "a token that fell":
            await watched.execute(MOVE, id, "processing", "pending", 7, 6)
        case "more attempts or rescues than allowed":
            await watched.execute("UPDATE jobs_done SET attempt = 6 WHERE id = $1", id)
        case "counters that differ from the rows":
            await watched.execute("UPDATE counter_deltas SET n = n + 1")
    verdict = await judge(watched, acknowledged, effects=tmp_path)
    assert mistake in verdict.mistakes
    assert verdict.story[0].startswith("==")
    assert bool(verdict.lost) == (mistake in LOST)
    assert bool(verdict.twice) == (mistake in TWICE)
