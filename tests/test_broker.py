"""The lanes against a model, and everything else that Redis is asked, on a real one."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import redis.asyncio
from uuid_utils.compat import uuid7

from jobflow.broker import (
    PRIORITIES,
    SUBSCRIBED,
    Broker,
    Entry,
    lane_key,
    micros,
    moment,
    parse_tail,
    states_key,
    window_key,
)
from jobflow.engine.fairness import Fairness
from jobflow.errors import BrokerUnavailable
from jobflow.statements import LUA
from tests.support.commands import free_port
from tests.support.lanes import packed, states_of
from tests.support.proxy import proxied
from tests.support.waiting import until

NOW = datetime(2026, 3, 4, 5, 6, 7, 891_011, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
Q = "some-queue"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def entries(count: int, priority: int = 5, seconds: float = -1000.0) -> list[Entry]:
    return [Entry(priority, at(seconds) + timedelta(microseconds=n), uuid7()) for n in range(count)]


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Any]:
    """A client of the test's own, to look at what really is there."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def small(redis_url: str) -> AsyncIterator[Broker]:
    broker = Broker(redis_url, lane_size=10, pool_size=4)
    yield broker
    await broker.close()


async def opened(broker: Broker, *priorities: int, queue: str = Q) -> None:
    for priority in priorities:
        assert await broker.fill(queue, priority, "", False, b"")


async def lane_of(raw: Any, priority: int, queue: str = Q) -> dict[UUID, int]:
    found = await raw.zrange(lane_key(queue, priority), 0, -1, withscores=True)
    return {UUID(bytes=id): int(score) for id, score in found}


# ---- push and fill --------------------------------------------------------------------------------------------------


async def test_a_lane_that_is_absent_is_closed_and_says_so(broker: Broker, raw: Any) -> None:
    two = [*entries(2, 0), *entries(1, 3)]
    assert await broker.push(Q, two) == (0, [0, 3], [])
    assert await raw.keys("*") == []
    await opened(broker, 3)
    assert await broker.push(Q, two) == (1, [0], [])
    assert ({}, {two[2].id: micros(two[2].run_at)}) == (await lane_of(raw, 0), await lane_of(raw, 3))


async def test_an_open_lane_takes_all_and_each_id_once(broker: Broker, raw: Any) -> None:
    await opened(broker, 5)
    some = entries(3)
    assert await broker.push(Q, some) == (3, [], [])
    moved = [Entry(5, at(5), entry.id) for entry in some]
    assert await broker.push(Q, moved, fresh=False) == (0, [], [])  # read a while ago: the place it has is newer
    assert {entry.id: micros(entry.run_at) for entry in some} == await lane_of(raw, 5)
    assert await broker.push(Q, moved) == (3, [], [])  # just committed
    assert {entry.id: micros(entry.run_at) for entry in moved} == await lane_of(raw, 5)
    sooner = Entry(5, at(-5000), some[2].id)
    assert await broker.push(Q, [sooner], fresh=False) == (0, [], [sooner.id])  # who read that has to ask again
    assert await broker.push(Q, [sooner]) == (1, [], [])  # a retry by a person
    assert (await broker.pop(Q, NOW, 1)).ids == [some[2].id]


async def test_a_spilled_lane_takes_what_is_not_after_its_tail(small: Broker, raw: Any) -> None:
    page = entries(5)
    assert await small.fill(Q, 5, "", True, packed(page))
    tail = page[-1]
    assert f"{micros(tail.run_at)}:{tail.id.hex}" == (await states_of(small, Q))[5]
    before = Entry(5, tail.run_at - timedelta(microseconds=1), uuid7())
    same = Entry(5, tail.run_at, uuid7())
    after = Entry(5, tail.run_at + timedelta(microseconds=1), uuid7())
    assert await small.push(Q, [before, same, after]) == (2, [], [])
    assert {*(entry.id for entry in page), before.id, same.id} == set(await lane_of(raw, 5))


async def test_a_lane_that_overflows_spills_and_its_tail_is_its_last_entry(small: Broker, raw: Any) -> None:
    await opened(small, 5)
    many = entries(14)
    assert await small.push(Q, random.Random(1).sample(many, 14)) == (14, [], [])
    assert {entry.id: micros(entry.run_at) for entry in many[:10]} == await lane_of(raw, 5)
    assert (many[9].run_at, many[9].id) == parse_tail((await states_of(small, Q))[5])
    earlier = entries(2, seconds=-2000)
    assert await small.push(Q, earlier) == (2, [], [])
    assert (many[7].run_at, many[7].id) == parse_tail((await states_of(small, Q))[5])
    assert {entry.id for entry in [*earlier, *many[:8]]} == set(await lane_of(raw, 5))


async def test_a_fill_that_overflows_spills_too(small: Broker, raw: Any) -> None:
    await opened(small, 5)
    await small.push(Q, entries(8))
    many = entries(8, seconds=-2000)
    assert await small.fill(Q, 5, "+", False, packed(many))
    kept = await lane_of(raw, 5)
    assert len(kept) == 10
    last = parse_tail((await states_of(small, Q))[5])
    assert last is not None
    assert max(kept.values()) == micros(last[0])


async def test_a_fill_is_refused_when_the_lane_is_not_as_it_was_seen(small: Broker, raw: Any) -> None:
    page = entries(4)
    refused = {}
    for real, seen in [("", "+"), ("+", ""), ("+", "5:00"), ("tail", ""), ("tail", "+")]:
        await raw.flushdb()
        if real == "+":
            await opened(small, 5)
        if real == "tail":
            await small.fill(Q, 5, "", True, packed(page[:2]))
        before = (await lane_of(raw, 5), await states_of(small, Q))
        refused[real, seen] = not await small.fill(Q, 5, seen, False, packed(page))
        assert before == (await lane_of(raw, 5), await states_of(small, Q))
    assert set(refused.values()) == {True}
    state = (await states_of(small, Q))[5]
    assert await small.fill(Q, 5, state, False, packed(page[2:]))
    assert (await states_of(small, Q))[5] == "+"
    assert len(await lane_of(raw, 5)) == 4


async def test_scores_and_tails_are_exact_to_the_microsecond(small: Broker, raw: Any) -> None:
    odd = [Entry(5, NOW + timedelta(microseconds=n), uuid7()) for n in range(11)]
    await opened(small, 5)
    await small.push(Q, odd)
    assert {entry.id: micros(entry.run_at) for entry in odd[:10]} == await lane_of(raw, 5)
    assert (odd[9].run_at, odd[9].id) == parse_tail((await states_of(small, Q))[5])
    popped = await small.pop(Q, odd[3].run_at, 20)
    assert [entry.id for entry in odd[:4]] == popped.ids
    assert odd[4].run_at == popped.next_due
    far = datetime(2250, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    await opened(small, 6)
    await small.push(Q, [Entry(6, far, uuid7())])
    assert [micros(far)] == list((await lane_of(raw, 6)).values())
    await small.drop(Q, [(5, entry.id) for entry in odd])
    assert far == (await small.pop(Q, NOW, 1)).next_due
    for value in (NOW, far, datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)):
        assert value == moment(micros(value))


async def test_a_job_for_the_end_of_all_days_spoils_nothing(small: Broker, raw: Any) -> None:
    never = Entry(5, datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), uuid7())
    first, last = entries(2)
    assert await small.fill(Q, 5, "", False, packed([first, never, last]))
    await small.fill(Q, 6, "", True, packed([Entry(6, never.run_at, never.id)]))
    await small.push(Q, [Entry(5, never.run_at, uuid7()), *entries(1)])
    lane = await lane_of(raw, 5)
    assert len(lane) == 5
    assert [lane[entry.id] for entry in (first, never, last)] == [micros(e.run_at) for e in (first, never, last)]
    assert (await small.pop(Q, LATER, 9)).ids[0] == first.id
    assert set(await lane_of(raw, 5)) == {never.id, *(id for id, score in lane.items() if score == lane[never.id])}
    assert (moment(micros(never.run_at)), never.id) == parse_tail((await states_of(small, Q))[6])


async def test_the_lanes_of_a_queue_are_its_own(broker: Broker, raw: Any) -> None:
    await opened(broker, 5, queue="a")
    await broker.push("a", entries(2))
    assert dict.fromkeys(PRIORITIES, "") == await states_of(broker, "b")
    assert (await broker.pop("b", NOW, 5)).ids == []
    names = [lane_key("a", 0), lane_key("a", 9), states_key("a")]
    assert {"{jf:a}"} == {name.partition(":r")[0].removesuffix(":st") for name in names}


async def test_dropped_ids_are_gone(broker: Broker, raw: Any) -> None:
    await opened(broker, 0, 9)
    some = [*entries(2, 0), *entries(2, 9)]
    await broker.push(Q, some)
    assert await broker.drop(Q, [(0, some[0].id), (9, some[3].id), (9, some[1].id), (5, uuid7())]) == 2
    assert [{some[1].id}, {some[2].id}] == [set(await lane_of(raw, p)) for p in (0, 9)]


# ---- pop ------------------------------------------------------------------------------------------------------------


async def test_a_pop_takes_what_is_due_in_order_and_says_what_comes_next(broker: Broker) -> None:
    await opened(broker, 5)
    due, soon, later = Entry(5, NOW, uuid7()), Entry(5, at(3), uuid7()), Entry(5, at(9), uuid7())
    await broker.push(Q, [later, soon, due])
    first = await broker.pop(Q, NOW - timedelta(microseconds=1), 10)
    assert ([], due.run_at) == (first.ids, first.next_due)
    second = await broker.pop(Q, NOW, 10)
    assert ([due.id], soon.run_at) == (second.ids, second.next_due)
    third = await broker.pop(Q, LATER, 1)
    assert [soon.id] == third.ids
    fourth = await broker.pop(Q, LATER, 10)
    assert ([later.id], None) == (fourth.ids, fourth.next_due)
    assert (await broker.pop(Q, LATER, 10)).ids == []


async def test_a_pop_asks_for_lanes_that_run_low_once_a_second_and_never_for_open_ones(small: Broker) -> None:
    async def fills(now: datetime) -> dict[int, str]:
        return (await small.pop(Q, now, 1)).fills

    cold = dict.fromkeys(PRIORITIES, "")
    assert cold == await fills(NOW)
    assert await fills(at(0.9)) == {}
    assert cold == await fills(at(1.1))  # who was asked did not come
    await opened(small, *(p for p in PRIORITIES if p != 5))
    assert await fills(at(2.2)) == {5: ""}
    page = entries(9)
    await small.fill(Q, 5, "", True, packed(page))
    tail = (await states_of(small, Q))[5]
    asked = [await fills(at(3 + n / 1000)) for n in range(6)]  # 8, 7, 6, 5, 4, 3 are left
    assert [{}, {}, {}, {}, {5: tail}, {}] == asked
    await small.fill(Q, 5, tail, True, packed(entries(1, seconds=-900)))
    assert {5} == set(await fills(at(3.1)))  # a fill gives the lease back: it is still low


async def test_concurrent_pops_get_each_id_once(broker: Broker) -> None:
    await opened(broker, 5)
    some = entries(400)
    await broker.push(Q, some)
    popped = await asyncio.gather(*(broker.pop(Q, NOW, 7) for _ in range(80)))
    assert sorted(entry.id for entry in some) == sorted(id for pop in popped for id in pop.ids)


@pytest.fixture
async def wide(redis_url: str) -> AsyncIterator[Broker]:
    broker = Broker(redis_url, lane_size=20_000, pool_size=8)
    yield broker
    await broker.close()


TOTAL = sum((10 - p) ** 2 for p in PRIORITIES)


async def flood(broker: Broker, counts: dict[int, int]) -> dict[UUID, int]:
    """Due jobs in every lane; priority by id."""
    await opened(broker, *counts)
    lanes = {priority: entries(count, priority) for priority, count in counts.items()}
    for lane in lanes.values():
        for start in range(0, len(lane), 1_000):
            await broker.push(Q, lane[start : start + 1_000])
    return {entry.id: priority for priority, lane in lanes.items() for entry in lane}


@pytest.mark.parametrize("want", [1, 20, 500])
async def test_priorities_share_a_flood_by_their_weights_and_none_is_starved(wide: Broker, want: int) -> None:
    pops = 10_000
    priority = await flood(wide, {p: pops * (10 - p) ** 2 // TOTAL + 600 for p in PRIORITIES})
    taken: Counter[int] = Counter()
    first_of_nine = 0
    for _ in range(0, pops, want * 8):
        for popped in await asyncio.gather(*(wide.pop(Q, NOW, want) for _ in range(min(8, pops // want)))):
            for id in popped.ids:
                taken[priority[id]] += 1
                if priority[id] == 9 and not first_of_nine:
                    first_of_nine = sum(taken.values())
    total = sum(taken.values())
    assert total >= pops
    chunk = -(-want // 8)
    for p in PRIORITIES:
        expected = total * (10 - p) ** 2 / TOTAL
        assert abs(taken[p] - expected) <= expected * 0.06 + chunk + 2, (p, expected, taken)
    assert 0 < first_of_nine <= TOTAL + 10 * chunk * 10


async def test_with_little_waiting_the_urgent_ones_run_first(wide: Broker) -> None:
    priority = await flood(wide, {0: 20, 9: 20})
    order = [priority[id] for _ in range(20) for id in (await wide.pop(Q, NOW, 1)).ids]
    assert order == [0] * 20


@pytest.mark.parametrize("served_before", [0, 10])
async def test_a_lane_that_was_empty_gets_no_credit_for_it(wide: Broker, served_before: int) -> None:
    priority = await flood(wide, {5: 1_000, 4: served_before})
    for _ in range(300):
        await wide.pop(Q, NOW, 1)
    urgent = entries(1_000, 4)
    await wide.push(Q, urgent)
    priority |= {entry.id: 4 for entry in urgent}
    taken = Counter([priority[id] for _ in range(244) for id in (await wide.pop(Q, NOW, 1)).ids])
    assert abs(taken[5] - 244 * 25 / 61) <= 2


@pytest.mark.parametrize("seed", range(4))
async def test_redis_and_the_process_without_it_share_alike(wide: Broker, seed: int) -> None:
    rng = random.Random(seed)
    lanes = {p: rng.randint(100, 1_500) for p in rng.sample(list(PRIORITIES), 5)}
    priority = await flood(wide, lanes)
    left = dict(lanes)
    fairness = Fairness()
    theirs: Counter[int] = Counter()
    ours: Counter[int] = Counter()
    while sum(left.values()):
        want = rng.choice([1, 7, 50, 500])
        mine = fairness.share(left, want)
        popped = Counter(priority[id] for id in (await wide.pop(Q, NOW, want)).ids)
        theirs, ours = theirs + popped, ours + Counter(mine)
        assert ours == theirs, want
        left = {p: lanes[p] - theirs[p] for p in lanes}


# ---- the model ------------------------------------------------------------------------------------------------------

LANES = (0, 5, 9)


class World:
    """Postgres' open rows, what a reader of theirs does, and what must hold in Redis after every step.

    W1 every open row before the tail is in the lane or is known to be lost, which the sweep mends
    W2 no id after the tail is in the lane · W3 an absent lane takes nothing · W4 no lane is longer than its size
    """

    def __init__(self, broker: Broker, raw: Any, seed: int) -> None:
        self.broker, self.raw, self.random = broker, raw, random.Random(seed)
        self.rows: dict[UUID, Entry] = {}
        self.lost: set[UUID] = set()  # pushes that failed, pops whose claim failed, rows that came while a tail moved
        self.now = NOW
        self.steps = [self.commit] * 5 + [self.pop] * 4 + [self.fill] * 3 + [self.drop, self.sweep, self.flush]
        self.done: Counter[str] = Counter()

    async def states(self) -> dict[int, str]:
        return await states_of(self.broker, Q)

    def new(self) -> list[Entry]:
        made = [
            Entry(
                self.random.choice(LANES),
                self.now + timedelta(microseconds=self.random.choice([-9_000_000, -5, 0, 0, 2_000_000]) + n % 2),
                UUID(int=self.random.getrandbits(128)),
            )
            for n in range(self.random.randint(1, 8))
        ]
        self.rows |= {entry.id: entry for entry in made}
        return made

    async def push(self, some: list[Entry]) -> None:
        states = await self.states()
        before = {p: await lane_of(self.raw, p) for p in LANES}
        pushed = await self.broker.push(Q, some)
        assert {e.priority for e in some if states[e.priority] == ""} == set(pushed.cold)
        for p in LANES:
            if states[p] == "":
                assert before[p] == await lane_of(self.raw, p)  # W3
        self.lost -= {entry.id for entry in some}

    async def commit(self) -> None:
        made = self.new()
        if self.random.random() < 0.15:
            self.lost |= {entry.id for entry in made}
            self.done["lost push"] += 1
        else:
            await self.push(made)

    async def pop(self) -> None:
        self.now += timedelta(seconds=self.random.choice([0, 0, 1.5]))
        want = self.random.choice([1, 3, 20])
        before = {p: await lane_of(self.raw, p) for p in LANES}
        popped = await self.broker.pop(Q, self.now, want)
        assert len(popped.ids) == len(set(popped.ids)) <= want
        due = 0
        for p in LANES:
            after = await lane_of(self.raw, p)
            taken = [id for id in popped.ids if id in before[p]]
            assert {id: s for id, s in before[p].items() if id not in taken} == after
            order = sorted((score, id.bytes, id) for id, score in before[p].items())
            ripe = [id for score, _, id in order if score <= micros(self.now)]
            assert ripe[: len(taken)] == taken  # the oldest ones, and none before its time
            due += len(ripe)
        assert min(want, due) == len(popped.ids)
        for id in popped.ids:
            if id in self.rows and self.random.random() < 0.1:
                self.lost.add(id)
                self.done["lost pop"] += 1
            else:
                self.rows.pop(id, None)

    def after(self, priority: int, tail: tuple[datetime, UUID] | None, limit: int) -> list[Entry]:
        lane = sorted((e for e in self.rows.values() if e.priority == priority), key=lambda e: (e.run_at, e.id.bytes))
        key = (tail[0], tail[1].bytes) if tail else None
        return [e for e in lane if key is None or (e.run_at, e.id.bytes) > key][:limit]

    async def fill(self) -> None:
        priority = self.random.choice(LANES)
        state = (await self.states())[priority]
        if state == "+":
            return
        tail, page = parse_tail(state), self.broker.lane_size // 2
        rows = self.after(priority, tail, page)
        late: list[Entry] = []
        if self.random.random() < 0.5:  # somebody commits and pushes between our read and our fill
            late = self.new()
            await self.push(late)
        full = len(rows) == page
        if not await self.broker.fill(Q, priority, state, full, packed(rows)):
            self.done["stale"] += 1
            return
        self.done["full" if full else "opened"] += 1
        if full:  # the tail has moved over those that came meanwhile: the sweep finds them
            self.lost |= {entry.id for entry in late}
        while not full and (again := self.after(priority, tail, page)):  # from the old tail
            await self.push(again)
            tail = (again[-1].run_at, again[-1].id)

    async def drop(self) -> None:
        some = self.random.sample(sorted(self.rows), min(len(self.rows), 3))
        await self.broker.drop(Q, [(self.rows[id].priority, id) for id in some])
        for id in some:
            del self.rows[id]
            self.lost.discard(id)

    async def sweep(self) -> None:
        for priority in LANES:
            await self.push(self.after(priority, None, 1_000))

    async def flush(self) -> None:
        if self.random.random() < 0.3:
            await self.raw.flushdb()
            self.done["flush"] += 1

    async def check(self) -> None:
        states = await self.states()
        for p in LANES:
            lane, state = await lane_of(self.raw, p), states[p]
            assert len(lane) <= self.broker.lane_size  # W4
            if state == "":
                continue
            tail = parse_tail(state)
            if tail is not None:
                assert all(score <= micros(tail[0]) for score in lane.values())  # W2
            known = {
                e.id
                for e in self.rows.values()
                if e.priority == p and (tail is None or e.run_at < tail[0] or (e.run_at == tail[0] and e.id == tail[1]))
            }
            assert known - set(lane) - self.lost - await self.trimmed_ties(tail, known) == set()  # W1
            assert {id: micros(self.rows[id].run_at) for id in set(lane) & set(self.rows)} == {
                id: score for id, score in lane.items() if id in self.rows
            }

    async def trimmed_ties(self, tail: tuple[datetime, UUID] | None, known: set[UUID]) -> set[UUID]:
        """The tail itself may have been popped."""
        return {tail[1]} if tail is not None and tail[1] not in self.rows else set()


@pytest.mark.parametrize("seed", range(5))
async def test_lanes_hold_the_head_of_what_is_open_whatever_happens(small: Broker, raw: Any, seed: int) -> None:
    world = World(small, raw, seed)
    for _ in range(250):
        await world.random.choice(world.steps)()
        await world.check()
    assert {"lost push", "lost pop", "full", "opened", "flush"} <= set(world.done)
    # At last nobody comes any more: a few rounds of sweep, fill and pop find every row.
    for _ in range(400):
        if not world.rows:
            break
        world.now += timedelta(seconds=3)
        await world.sweep()
        await world.fill()
        await world.check()
        await world.pop()
    assert world.rows == {}


async def test_what_is_pushed_between_the_read_and_the_opening_is_found_by_the_second_read(
    broker: Broker, raw: Any
) -> None:
    first, late, early = Entry(5, at(-5), uuid7()), Entry(5, at(-4), uuid7()), Entry(5, at(-9), uuid7())
    rows = [first]  # read
    assert await broker.push(Q, [late, early]) == (0, [5], [])  # committed after the read: refused
    assert await broker.fill(Q, 5, "", False, packed(rows))  # opened
    assert {first.id} == set(await lane_of(raw, 5))
    assert await broker.push(Q, [early, first, late]) == (2, [], [])  # read again from the old tail
    assert [early.id, first.id, late.id] == (await broker.pop(Q, NOW, 9)).ids


# ---- the rate limit -------------------------------------------------------------------------------------------------


async def test_five_hundred_at_once_get_exactly_the_limit(broker: Broker, raw: Any) -> None:
    found = await asyncio.gather(*(broker.take("1.2.3.4", 1, 100, 60.0) for _ in range(500)))
    assert sum(granted for granted, _, _ in found) == 100
    assert await raw.zcard(window_key("1.2.3.4")) == 100  # the refused ones are not kept
    assert [*range(100)] == sorted(remaining for granted, remaining, _ in found if granted)
    assert {0} == {remaining for granted, remaining, _ in found if not granted}
    assert 0 < await raw.pttl(window_key("1.2.3.4")) <= 60_000
    assert (await broker.take("5.6.7.8", 1, 100, 60.0))[:2] == (1, 99)


async def test_several_are_let_through_as_far_as_there_is_room(broker: Broker) -> None:
    takes = [(await broker.take("c", wanted, 5, 60.0))[:2] for wanted in (3, 4, 1)]
    assert takes == [(3, 2), (2, 0), (0, 0)]


async def test_two_in_one_microsecond_are_two(raw: Any) -> None:
    async with raw.pipeline(transaction=True) as together:  # the clock of newer servers stands still meanwhile
        for nonce in ("a", "b"):
            together.eval(LUA["take"], 1, window_key("c"), 1, 5, 60_000_000, nonce)
        assert [answer[:2] for answer in await together.execute()] == [[1, 4], [1, 3]]
    members = await raw.zrange(window_key("c"), 0, -1, withscores=True)
    assert len(members) == 2


async def test_the_window_slides(broker: Broker, raw: Any) -> None:
    async def pass_by(seconds: float) -> None:
        """So much time: what was let through is older by it."""
        for member in await raw.zrange(window_key("c"), 0, -1):
            await raw.zincrby(window_key("c"), -seconds * 1e6, member)

    granted, remaining, reset = await broker.take("c", 1, 2, 600.0)
    assert (granted, remaining) == (1, 1)
    assert 0 < reset <= 600
    await pass_by(400)
    assert (await broker.take("c", 5, 2, 600.0))[0] == 1
    granted, _, reset = await broker.take("c", 1, 2, 600.0)
    assert granted == 0
    assert 0 < reset <= 200  # until the first one leaves, not the second
    await pass_by(201)
    # One place is free when the first has left; the second one still counts.
    assert (await broker.take("c", 2, 2, 600.0))[0] == 1


async def test_the_window_goes_by_the_clock(broker: Broker) -> None:
    began = time.monotonic()
    assert (await broker.take("c", 1, 1, 0.3))[0] == 1
    await until(lambda: broker.take("c", 1, 1, 0.3), lambda taken: taken[0] == 1)
    assert time.monotonic() - began >= 0.3


# ---- Redis away, forgetful, full or read-only -----------------------------------------------------------------------


async def use_all(broker: Broker) -> list[str]:
    """Every script once. Returns which of them said that Redis is unavailable."""
    calls = {
        "fill": lambda: broker.fill(Q, 5, "", False, packed(entries(1))),
        "push": lambda: broker.push(Q, entries(1)),
        "pop": lambda: broker.pop(Q, NOW, 1),
        "drop": lambda: broker.drop(Q, [(5, uuid7())]),
        "take": lambda: broker.take("c", 1, 5, 60.0),
    }
    away = []
    for name, call in calls.items():
        try:
            await call()  # type: ignore[no-untyped-call]
        except BrokerUnavailable:
            away.append(name)
    return away


async def test_scripts_that_redis_forgot_are_sent_again(broker: Broker, raw: Any) -> None:
    assert await use_all(broker) == []
    await raw.script_flush()
    assert await use_all(broker) == []
    await raw.flushdb()
    await raw.script_flush()
    results = await asyncio.gather(*(broker.take("d", 1, 3, 60.0) for _ in range(8)))
    assert sum(granted for granted, _, _ in results) == 3


async def test_a_redis_that_is_not_there_is_unavailable() -> None:
    broker = Broker(f"redis://127.0.0.1:{free_port()}/0", lane_size=10, pool_size=4)
    assert await use_all(broker) == ["fill", "push", "pop", "drop", "take"]
    with pytest.raises(BrokerUnavailable):
        await broker.check()
    with pytest.raises(BrokerUnavailable):
        await anext(broker.wakes())
    await broker.close()


async def test_a_redis_that_is_full_is_unavailable_until_there_is_room(broker: Broker, raw: Any) -> None:
    assert await use_all(broker) == []
    await raw.config_set("maxmemory", "1")
    try:
        away = await use_all(broker)
    finally:
        await raw.config_set("maxmemory", "0")
    assert "push" in away  # what frees memory goes on
    assert await use_all(broker) == []


async def test_a_redis_that_became_a_replica_is_unavailable_until_it_is_one_no_more(broker: Broker, raw: Any) -> None:
    assert await use_all(broker) == []
    await raw.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
    try:
        away = await use_all(broker)
        with pytest.raises(BrokerUnavailable, match=r"(?i)read only|readonly"):
            await broker.push(Q, entries(1))
    finally:
        await raw.execute_command("REPLICAOF", "NO", "ONE")
    assert {"push", "pop", "take"} <= set(away)
    assert await use_all(broker) == []


async def test_connections_that_were_killed_are_replaced(broker: Broker, raw: Any) -> None:
    await asyncio.gather(*(broker.pop(Q, NOW, 1) for _ in range(8)))
    await raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for _ in range(20):
        if not await use_all(broker):
            break
    assert await use_all(broker) == []


async def test_a_redis_that_evicts_is_worth_a_warning(broker: Broker, raw: Any) -> None:
    assert None is await broker.check()
    await raw.config_set("maxmemory-policy", "allkeys-lru")
    try:
        warning = await broker.check()
    finally:
        await raw.config_set("maxmemory-policy", "noeviction")
    assert warning is not None
    assert "allkeys-lru" in warning


# ---- wake-ups -------------------------------------------------------------------------------------------------------


async def test_who_listens_is_told_of_queues_with_new_jobs(broker: Broker) -> None:
    await opened(broker, 5)
    async with aclosing(broker.wakes()) as wakes:  # type: ignore[type-var]
        assert await anext(wakes) == SUBSCRIBED
        some = entries(1)
        await broker.push(Q, some)
        await broker.push("cold", entries(1))  # nothing was added there
        await broker.push(Q, some)
        await broker.push(Q, entries(2))
        assert [await anext(wakes), await anext(wakes)] == [Q, Q]
        assert None is await anext(wakes)  # a quiet second


async def test_hints_reach_who_listens_for_them_and_nobody_else(broker: Broker) -> None:
    async with aclosing(broker.hints()) as hints, aclosing(broker.wakes()) as wakes:  # type: ignore[type-var]
        assert (await anext(hints), await anext(wakes)) == (SUBSCRIBED, SUBSCRIBED)
        await broker.hint(["jobs", "queues"])
        # A process that other tests have left running may hint at itself.
        await until(lambda: anext(hints), lambda told: told == "jobs queues")  # type: ignore[arg-type]
        assert None is await anext(wakes)


async def test_listening_ends_when_the_connection_does(broker: Broker, raw: Any) -> None:
    async with aclosing(broker.wakes()) as wakes:  # type: ignore[type-var]
        assert await anext(wakes) == SUBSCRIBED
        await raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        with pytest.raises(BrokerUnavailable):
            await anext(wakes)


def test_the_tail_of_a_state() -> None:
    id = uuid7()
    assert {"": None, "+": None, f"{micros(NOW)}:{id.hex}": (NOW, id)} == {
        state: parse_tail(state) for state in ("", "+", f"{micros(NOW)}:{id.hex}")
    }


async def test_a_pop_whose_answer_was_lost_is_not_sent_again(broker: Broker, redis_url: str) -> None:
    """A second pop would take other ids, and the first ones were gone."""
    await opened(broker, 5)
    waiting = entries(6)
    await broker.push(Q, waiting)
    async with proxied(redis_url) as proxy:
        cut_off = Broker(proxy.url, lane_size=1_000, pool_size=1)
        await cut_off.check()  # connected, and the first answer of its own comes through
        proxy.marker = waiting[0].id.bytes
        popping = asyncio.create_task(cut_off.pop(Q, NOW, 2))
        await proxy.dropped.wait()
        proxy.mend()
        (answer,) = await asyncio.gather(popping, return_exceptions=True)
        await cut_off.close()
    assert isinstance(answer, BrokerUnavailable)
    assert (await broker.pop(Q, NOW, 10)).ids == [entry.id for entry in waiting[2:]]
