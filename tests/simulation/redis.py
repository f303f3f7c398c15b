"""A model of the scripts in jobflow/lua, behind the product's own Broker."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

from jobflow.broker import SUBSCRIBED, Broker, Page, micros
from jobflow.errors import BrokerUnavailable
from tests.simulation.clock import VirtualLoop

Lane = dict[bytes, int]  # id → score


class Redis:
    """Sorted sets and hashes of one server; ``flush()`` may come between any two scripts."""

    def __init__(self, loop: VirtualLoop, random: Random, note: Callable[[str], None]) -> None:
        self.loop, self.random, self.note = loop, random, note
        self.up, self.loss = True, 0.002  # share of requests, and then of answers, that are lost
        self.lanes: dict[str, Lane] = {}
        self.states: dict[str, dict[str, Any]] = {}
        self.listeners: list[asyncio.Queue[str | None]] = []

    def flush(self) -> None:
        self.lanes.clear()
        self.states.clear()

    def go_away(self, *, empty: bool) -> None:
        self.up = False
        if empty:
            self.flush()
        for listener in self.listeners:
            listener.put_nowait(None)
        self.listeners.clear()

    def lane(self, key: str) -> Lane:
        return self.lanes.setdefault(key, {})

    def run(self, name: str, keys: list[str], args: list[Any]) -> Any:
        return getattr(self, "_" + name)(keys, args)

    def _push(self, keys: list[str], args: list[Any]) -> Any:
        cap, _, queue, fresh, jobs = args
        states = self.states.setdefault(keys[10], {})
        added, later, cold, touched = 0, [], [], set()
        for i in range(0, len(jobs), 33):
            priority, score, id = int(jobs[i : i + 1]), int(jobs[i + 1 : i + 17]), jobs[i + 17 : i + 33]
            state = states.get(str(priority))
            if state is None:
                if priority not in cold:
                    cold.append(priority)
                continue
            lane = self.lane(keys[priority])
            if state == "+" or score <= int(state.partition(":")[0]):
                if id not in lane or (fresh and lane[id] != score):
                    lane[id] = score
                    added += 1
                elif not fresh and lane[id] > score:
                    later.append(id)
                touched.add(priority)
        for priority in sorted(touched):
            self._trim(keys[priority], states, priority, cap)
        if added:
            for listener in self.listeners:
                if self.random.random() < 0.95:
                    self.loop.outside(0.0005, listener.put_nowait, queue)
        return [added, b"".join(later), *cold]

    def _trim(self, key: str, states: dict[str, Any], priority: int, cap: int) -> None:
        lane = self.lane(key)
        excess = len(lane) - cap
        if excess > 0:
            order = sorted((score, id) for id, score in lane.items())
            for _, id in order[-excess:]:
                del lane[id]
            score, id = order[-excess - 1]
            states[str(priority)] = f"{score}:{id.hex()}"

    def _fill(self, keys: list[str], args: list[Any]) -> int:
        priority, cap, seen, full, rows = args
        states = self.states.setdefault(keys[1], {})
        if states.get(str(priority), "") != seen:
            return 0
        states.pop(f"l{priority}", None)
        lane = self.lane(keys[0])
        for _, run_at, id in Page(0, rows).entries():
            lane.setdefault(id.bytes, micros(run_at))
        states[str(priority)] = f"{micros(Page(0, rows).tail[0])}:{rows[-16:].hex()}" if full else "+"
        self._trim(keys[0], states, priority, cap)
        return 1

    def _pop(self, keys: list[str], args: list[Any]) -> Any:
        now, want, low = args
        states = self.states.setdefault(keys[10], {})
        ids: list[bytes] = []
        for priority in range(10):  # in strict order: who is first is no matter of correctness
            lane = self.lane(keys[priority])
            due = sorted((score, id) for id, score in lane.items() if score <= now)[: want - len(ids)]
            for _, id in due:
                del lane[id]
                ids.append(id)
        fills: list[Any] = []
        first: float = math.inf
        for priority in range(10):
            lane, state = self.lane(keys[priority]), states.get(str(priority))
            if state != "+" and len(lane) < low and now > states.get(f"l{priority}", 0):
                states[f"l{priority}"] = now + 1_000_000
                fills += [priority, (state or "").encode()]
            first = min(first, *lane.values()) if lane else first
        return [b"".join(ids), fills, str(first).encode() if len(ids) < want and lane_known(first) else b""]

    def _drop(self, keys: list[str], args: list[Any]) -> int:
        return sum(self.lane(keys[args[i]]).pop(args[i + 1], None) is not None for i in range(0, len(args), 2))


def lane_known(first: float) -> bool:
    return first != math.inf


class SimulatedBroker(Broker):
    """The product's Broker with the wire taken out. ``away``: this process alone cannot reach Redis."""

    def __init__(self, redis: Redis, lane_size: int) -> None:
        super().__init__("redis://nowhere", lane_size=lane_size, pool_size=1)
        self.model, self.away = redis, False

    def _reachable(self) -> None:
        if not self.model.up or self.away:
            raise BrokerUnavailable("Redis is away.")

    async def _run(self, name: str, keys: list[str], args: list[Any]) -> Any:
        random = self.model.random
        await asyncio.sleep(random.random() * (0.1 if random.random() < 0.01 else 0.0005))
        self._reachable()
        if random.random() < self.model.loss:
            raise BrokerUnavailable("The request was lost.")
        found = self.model.run(name, keys, args)
        await asyncio.sleep(random.random() * (0.1 if random.random() < 0.01 else 0.0005))
        if random.random() < self.model.loss or not self.model.up:
            self.model.note(f"redis: the answer to {name} is lost")
            raise BrokerUnavailable("The answer was lost.")
        return found

    async def _listen(self, channel: str) -> AsyncIterator[str | None]:
        self._reachable()
        messages: asyncio.Queue[str | None] = asyncio.Queue()
        self.model.listeners.append(messages)
        yield SUBSCRIBED
        while True:
            text = await messages.get()
            if text is None or self.away:
                raise BrokerUnavailable("Redis is away.")
            yield text

    async def hint(self, topics: Any) -> None:
        pass
