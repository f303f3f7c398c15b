from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobflow import events as e
from jobflow import lifecycle, metrics
from jobflow.events import Events, JobsEnqueued, RunEnded, RunStarted
from jobflow.lifecycle import Change, Failure
from jobflow.metrics import Metrics
from jobflow.overview import Totals
from tests.support.runs import DUE, JOB, WORKER, make_run

NOTHING = Totals(by_status={}, total=0, ready=0, retrying=0)
BOOM = Failure("E", "boom")


class Queue:
    def __init__(self, name: str, by_status: dict[str, int], age: float | None, paused: bool) -> None:
        self.name, self.by_status, self.oldest_ready_age, self.paused = name, by_status, age, paused


class Bench:
    def __init__(self) -> None:
        self.events = Events()
        self.metrics = Metrics(self.events, "1.2.3")

    def emit(self, *happened: e.Event) -> None:
        for event in happened:
            self.events.emit(event)

    def samples(self, totals: Any = NOTHING, queues: Any = ()) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = self.metrics.render(totals, queues).decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, /, **labels: str) -> float:
        return self.samples()[name, frozenset(labels.items())]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def ended(change: Change, seconds: float = 0.5, status: str | None = None) -> RunEnded:
    return RunEnded(change, seconds, status or change.after)


def test_enqueued_jobs_by_queue_and_type(bench: Bench) -> None:
    bench.emit(
        JobsEnqueued([JOB], ["a"], ["q"]),
        JobsEnqueued([JOB] * 3, ["a", "b", "a"], ["q", "q", "q"]),
    )
    assert bench.value("jobflow_jobs_enqueued_total", queue="q", type="a") == 3
    assert bench.value("jobflow_jobs_enqueued_total", queue="q", type="b") == 1


def test_every_run_counts_as_an_attempt_and_only_final_ones_as_finished(bench: Bench) -> None:
    run = make_run(type="a", queue="q")
    bench.emit(
        ended(lifecycle.complete(run, None)),
        ended(lifecycle.complete(run, None)),
        ended(lifecycle.fail(run, BOOM, 1.0)),
        ended(lifecycle.fail(run, BOOM, 1.0), status="cancelled"),
        ended(lifecycle.discard(run, BOOM)),
        ended(lifecycle.snooze(run, 1.0)),
    )
    labels = {"queue": "q", "type": "a"}
    samples = bench.samples()

    def of(name: str) -> dict[str, float]:
        wanted = {key: value for key, value in samples.items() if key[0] == name}
        return {dict(pairs)["outcome"]: value for (_, pairs), value in wanted.items()}

    assert of("jobflow_job_attempts_total") == {"completed": 2, "errored": 2, "discarded": 1, "snoozed": 1}
    assert of("jobflow_jobs_finished_total") == {"completed": 2, "cancelled": 1, "dead_letter": 1}
    assert bench.value("jobflow_job_run_seconds_count", **labels) == 6


def test_histograms_are_cumulative(bench: Bench) -> None:
    run = make_run(type="a", queue="q")
    bench.emit(*[ended(lifecycle.complete(run, None), s) for s in (0.005, 0.0051, 3.0, 1e6)])
    labels = {"queue": "q", "type": "a"}
    counts = [
        bench.value("jobflow_job_run_seconds_bucket", le=le, **labels) for le in ("0.005", "0.025", "5.0", "+Inf")
    ]
    assert counts == [1, 2, 3, 4]
    assert bench.value("jobflow_job_run_seconds_sum", **labels) == pytest.approx(1_000_003.0101)


def test_the_wait_counts_from_when_it_was_due(bench: Bench) -> None:
    for seconds in (2.0, -1.0):  # a clock that runs ahead makes no negative wait
        bench.emit(RunStarted(make_run(type="a", queue="q", run_at=DUE, started_at=DUE + timedelta(seconds=seconds))))
    assert bench.value("jobflow_job_wait_seconds_sum", queue="q", type="a") == 2.0
    assert bench.value("jobflow_job_wait_seconds_count", queue="q", type="a") == 2


@pytest.mark.parametrize(
    ("event", "name", "value"),
    [
        (e.RunRefused(lifecycle.complete(make_run(), None)), "jobflow_stale_completions_total", 1),
        (e.RunsRescued(WORKER, 7), "jobflow_rescues_total", 7),
        (e.ClaimsAdopted(3), "jobflow_self_audit_released_total", 3),
        (e.ClaimsForgotten(2), "jobflow_claims_forgotten_total", 2),
        (e.WorkerMarkedLost(WORKER), "jobflow_workers_lost_total", 1),
        (e.LeaseLost(WORKER, JOB), "jobflow_leases_lost_total", 1),
        (e.LoopFailed("fetcher", ValueError()), "jobflow_loop_failures_total", 1),
        (e.LoopBlocked(1.0, ""), "jobflow_loop_blocked_total", 1),
        (e.RunStuck(make_run()), "jobflow_runs_stuck_total", 1),
        (e.RequestFailed("GET", "/", "r", ValueError()), "jobflow_requests_failed_total", 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_of_these_events_has_its_counter(bench: Bench, event: e.Event, name: str, value: float) -> None:
    assert bench.value(name) == 0
    bench.emit(event, event)
    assert bench.value(name) == 2 * value
    assert (
        sum(v for (n, _), v in bench.samples().items() if n.startswith("jobflow_") and n.endswith("_total"))
        == 2 * value
    )


def test_servers_that_were_away(bench: Bench) -> None:
    bench.emit(e.ServerAway("redis", "refused"))
    assert bench.value("jobflow_server_away", server="redis") == 1
    assert bench.value("jobflow_server_away", server="postgres") == 0
    bench.emit(e.ServerBack("redis", 2.5), e.ServerAway("redis", "refused"), e.ServerBack("redis", 1.0))
    assert bench.value("jobflow_server_away", server="redis") == 0
    assert bench.value("jobflow_server_away_seconds_total", server="redis") == 3.5


def test_loop_lag_version_and_the_process_itself(bench: Bench) -> None:
    bench.metrics.set_loop_lag(4.0)
    bench.metrics.set_loop_lag(0.001)
    assert bench.value("jobflow_event_loop_lag_seconds") == 4.0, "told long enough to be seen"
    bench.metrics._loop_lag_until -= 60.0
    bench.metrics.set_loop_lag(0.012)
    assert bench.value("jobflow_event_loop_lag_seconds") == 0.012
    assert bench.value("jobflow_build_info", version="1.2.3") == 1
    assert bench.value("process_resident_memory_bytes") > 1_000_000


def test_gauges_of_what_postgres_says(bench: Bench) -> None:
    totals = Totals(by_status={"pending": 3, "completed": 9}, total=12, ready=5, retrying=2)
    queues = [Queue("a", {"pending": 3}, 1.5, False), Queue("b", {"completed": 9}, None, True)]
    samples = bench.samples(totals, queues)
    expected = {
        ("jobflow_jobs", ("status", "pending")): 3,
        ("jobflow_jobs", ("status", "completed")): 9,
        ("jobflow_queue_oldest_ready_age_seconds", ("queue", "a")): 1.5,
        ("jobflow_queue_oldest_ready_age_seconds", ("queue", "b")): 0,
        ("jobflow_queue_paused", ("queue", "a")): 0,
        ("jobflow_queue_paused", ("queue", "b")): 1,
    }
    for (name, label), value in expected.items():
        assert samples[name, frozenset([label])] == value
    assert samples["jobflow_jobs_ready", frozenset()] == 5
    assert samples["jobflow_jobs_retrying", frozenset()] == 2
    assert samples["jobflow_queue_jobs", frozenset([("queue", "a"), ("status", "pending")])] == 3
    assert ("jobflow_jobs", frozenset([("status", "pending")])) not in bench.samples()


def test_names_from_callers_do_not_grow_without_bound(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "DISTINCT", 20)
    monkeypatch.setattr(metrics, "SERIES", 100)
    for n in range(25):
        bench.emit(JobsEnqueued([JOB], [f"type{n}"], ["q"]))
    assert bench.value("jobflow_jobs_enqueued_total", queue="q", type="other") == 5
    assert bench.value("jobflow_jobs_enqueued_total", queue="q", type="type0") == 1
    for q in range(25):
        for t in range(10):
            bench.emit(JobsEnqueued([JOB], [f"type{t}"], [f"queue{q}"]))
    counted = [value for (name, _), value in bench.samples().items() if name == "jobflow_jobs_enqueued_total"]
    assert len(counted) == 101
    assert sum(counted) == 25 + 250


def test_two_processes_worth_of_metrics_do_not_mix(bench: Bench) -> None:
    bench.emit(JobsEnqueued([JOB], ["a"], ["q"]))
    assert not any(name == "jobflow_jobs_enqueued_total" for name, _ in Bench().samples())
    assert bench.metrics.content_type.startswith("text/plain; version=0.0.4")


def test_label_values_are_escaped(bench: Bench) -> None:
    bench.emit(JobsEnqueued([JOB], ['a"\\\n'], ["q"]))
    assert bench.value("jobflow_jobs_enqueued_total", queue="q", type='a"\\\n') == 1
