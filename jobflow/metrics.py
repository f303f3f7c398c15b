"""Counts events, and shows them with the state of the queues in Prometheus' text format.

The counters are plain numbers that a collector reads at scrape time: prometheus-client's own counters take a lock and
half a microsecond each, and several of them per job would cost more than the rest of the job.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from jobflow import events as e
from jobflow.lifecycle import FINAL
from jobflow.overview import Queue, Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (
    0.005,
    0.025,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    60.0,
    300.0,
    3600.0,
)  # seconds; each costs a line per series
DISTINCT = 200  # names of types, and of queues, that get series of their own; the rest is "other"
SERIES = 300  # the same for their pairs: names come from callers, memory does not
OTHER = "other"
LAG_TOLD = 60.0  # seconds that a late loop is told: longer than scrapes are apart


class Histogram:
    """Counts per bucket and a sum; only the event loop's thread adds to it."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(BUCKETS, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, count up to it), as Prometheus wants them."""
        total, rows = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


class Series:
    """What is counted for one queue and type."""

    __slots__ = ("ended", "enqueued", "labels", "run", "wait")

    def __init__(self, queue: str, type: str) -> None:
        self.labels = (queue, type)
        self.enqueued = 0
        self.ended: dict[tuple[str, str], int] = {}  # (cause, status) → runs
        self.run = Histogram()
        self.wait = Histogram()


# event → counter, its help text, and how much one event adds
_COUNTERS: dict[type[e.Event], tuple[str, str, Callable[[Any], float]]] = {
    e.RunRefused: ("jobflow_stale_completions", "Endings refused because the lease was lost", lambda x: 1),
    e.RunsRescued: ("jobflow_rescues", "Runs of lost processes that were made to run again", lambda x: x.count),
    e.ClaimsAdopted: ("jobflow_self_audit_released", "Claims whose answer was lost, handed back", lambda x: x.count),
    e.ClaimsForgotten: ("jobflow_claims_forgotten", "Runs whose claim Postgres does not know", lambda x: x.count),
    e.WorkerMarkedLost: ("jobflow_workers_lost", "Processes that were marked lost", lambda x: 1),
    e.LeaseLost: ("jobflow_leases_lost", "Times this process was marked lost", lambda x: 1),
    e.LoopFailed: ("jobflow_loop_failures", "Errors that a loop survived", lambda x: 1),
    e.LoopBlocked: ("jobflow_loop_blocked", "Times the event loop stood still", lambda x: 1),
    e.RunStuck: ("jobflow_runs_stuck", "Handlers that ignored their cancellation", lambda x: 1),
    e.RequestFailed: ("jobflow_requests_failed", "Requests that hit a bug", lambda x: 1),
}


class Metrics(Collector):
    """The listener and its numbers. One per process; all but the gauges of ``render`` are this process's own."""

    content_type = CONTENT_TYPE

    def __init__(self, events: e.Events, version: str) -> None:
        self._version = version
        self._series: dict[tuple[str, str], Series] = {}
        self._queues: set[str] = set()
        self._types: set[str] = set()
        self._counts = dict.fromkeys(_COUNTERS, 0.0)
        self._away = {"postgres": False, "redis": False}
        self._away_seconds: defaultdict[str, float] = defaultdict(float)
        self._loop_lag, self._loop_lag_until = 0.0, 0.0
        self._gauges: list[Metric] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._counters: dict[type[e.Event], Callable[[Any], None]] = {
            **dict.fromkeys(_COUNTERS, self._rare),
            e.RunStarted: self._started,
            e.RunEnded: self._ended,
            e.JobsEnqueued: self._enqueued,
            e.ServerAway: self._server_away,
            e.ServerBack: self._server_back,
        }
        events.subscribe(self)

    def __call__(self, events: Sequence[e.Event]) -> None:
        """Count events of one kind."""
        # By the exact type: asking a Struct's class whether it has an instance costs a microsecond for each question.
        if counter := self._counters.get(type(events[0])):
            for event in events:
                counter(event)

    def _started(self, event: e.RunStarted) -> None:
        run = event.run
        self._of(run.queue, run.type).wait.add(max(0.0, (run.started_at - run.run_at).total_seconds()))

    def _ended(self, event: e.RunEnded) -> None:
        run = event.change.run
        series = self._of(run.queue, run.type)
        series.run.add(event.seconds)
        key = (event.change.cause, event.status)
        series.ended[key] = series.ended.get(key, 0) + 1

    def _enqueued(self, event: e.JobsEnqueued) -> None:
        if len(event.ids) == 1:
            self._of(event.queues[0], event.types[0]).enqueued += 1
            return
        for (queue, name), count in Counter(zip(event.queues, event.types, strict=True)).items():
            self._of(queue, name).enqueued += count

    def _server_away(self, event: e.ServerAway) -> None:
        self._away[event.server] = True

    def _server_back(self, event: e.ServerBack) -> None:
        self._away[event.server] = False
        self._away_seconds[event.server] += event.seconds

    def _rare(self, event: e.Event) -> None:
        self._counts[type(event)] += _COUNTERS[type(event)][2](event)

    def set_loop_lag(self, seconds: float) -> None:
        """How late the event loop woke up; the worst is told for a minute, or nobody who looks now and then would see it."""
        now = time.monotonic()
        if seconds >= self._loop_lag or now > self._loop_lag_until:
            self._loop_lag, self._loop_lag_until = seconds, now + LAG_TOLD

    def render(self, totals: Totals, queues: Sequence[Queue]) -> bytes:
        """Everything in Prometheus' text format (see ``content_type``): our counters, and gauges of what is given.

        Takes 0.3 ms for each type that ran, so call it in a thread; events may be counted meanwhile.
        """
        self._gauges = list(_gauges(totals, queues))
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: the registry need not collect when we register."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Our numbers as prometheus-client wants them."""
        yield from _by_type(sorted(self._series.values(), key=lambda series: series.labels))
        for kind, (name, text, _) in _COUNTERS.items():
            yield CounterMetricFamily(name, text, value=self._counts[kind])
        seconds = CounterMetricFamily(
            "jobflow_server_away_seconds", "Time without a server, once it is back", labels=["server"]
        )
        away = GaugeMetricFamily("jobflow_server_away", "1 while a server does not answer", labels=["server"])
        for server in self._away:
            seconds.add_metric([server], self._away_seconds[server])
            away.add_metric([server], float(self._away[server]))
        yield seconds
        yield away
        yield GaugeMetricFamily(
            "jobflow_event_loop_lag_seconds",
            "How late the loop woke up at worst in the last minute",
            value=self._loop_lag,
        )
        build = GaugeMetricFamily("jobflow_build_info", "The version that runs", labels=["version"])
        build.add_metric([self._version], 1.0)
        yield build
        yield from self._gauges

    def _of(self, queue: str, type: str) -> Series:
        return self._series.get((queue, type)) or self._new(queue, type)

    def _new(self, queue: str, type: str) -> Series:
        labels = _bounded(self._queues, queue), _bounded(self._types, type)
        if labels not in self._series:
            if len(self._series) >= SERIES:
                labels = OTHER, OTHER
            self._series.setdefault(labels, Series(*labels))
        return self._series[labels]


def _bounded(known: set[str], name: str) -> str:
    if name not in known and len(known) >= DISTINCT:
        return OTHER
    known.add(name)
    return name


def _by_type(series: Sequence[Series]) -> Iterator[Metric]:
    labels = ["queue", "type"]
    enqueued = CounterMetricFamily("jobflow_jobs_enqueued", "Jobs committed through this process", labels=labels)
    finished = CounterMetricFamily(
        "jobflow_jobs_finished", "Jobs that reached a final status", labels=[*labels, "outcome"]
    )
    attempts = CounterMetricFamily("jobflow_job_attempts", "Runs, by how they ended", labels=[*labels, "outcome"])
    run = HistogramMetricFamily("jobflow_job_run_seconds", "From the claim to the end of the handler", labels=labels)
    wait = HistogramMetricFamily("jobflow_job_wait_seconds", "From due to started", labels=labels)
    for one in series:
        enqueued.add_metric(one.labels, one.enqueued)
        causes: Counter[str] = Counter()
        statuses: Counter[str] = Counter()
        for (cause, status), count in list(one.ended.items()):  # a copy: see render
            causes[cause] += count
            if status in FINAL:
                statuses[status] += count
        for cause, count in causes.items():
            attempts.add_metric([*one.labels, cause], count)
        for status, count in statuses.items():
            finished.add_metric([*one.labels, status], count)
        run.add_metric(one.labels, one.run.buckets(), one.run.sum)
        wait.add_metric(one.labels, one.wait.buckets(), one.wait.sum)
    yield from (enqueued, finished, attempts, run, wait)


def _gauges(totals: Totals, queues: Sequence[Queue]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("jobflow_jobs", "Jobs kept, all queues", labels=["status"])
    for status, count in totals.by_status.items():
        jobs.add_metric([status], count)
    yield jobs
    yield GaugeMetricFamily("jobflow_jobs_ready", "Jobs that could start now", value=totals.ready)
    yield GaugeMetricFamily("jobflow_jobs_retrying", "Failed jobs whose retry is not yet due", value=totals.retrying)
    depth = GaugeMetricFamily("jobflow_queue_jobs", "Jobs kept, by queue", labels=["queue", "status"])
    age = GaugeMetricFamily(
        "jobflow_queue_oldest_ready_age_seconds", "How long the oldest ready job waits", labels=["queue"]
    )
    paused = GaugeMetricFamily("jobflow_queue_paused", "1 while no job of the queue is started", labels=["queue"])
    for queue in queues:
        for status, count in queue.by_status.items():
            depth.add_metric([queue.name, status], count)
        age.add_metric([queue.name], queue.oldest_ready_age or 0.0)
        paused.add_metric([queue.name], float(queue.paused))
    yield from (depth, age, paused)
