"""The benchmarks must see what they look for: a missed bar, a lost job, what grows. And what they make by SQL must be true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import rows
from bench.database import Database
from bench.figures import Figures, percentile, spread
from bench.growth import Pairs
from bench.guard import losses
from bench.machine import CHECKOUT
from bench.processes import Meter, cpu_of
from bench.report import is_held, shares
from bench.scenarios import Line, scenarios
from bench.soak import BULK, Sent, growing, lost
from jobflow.statements import SQL

# --- bars and ratios ---


def rates(*values: float) -> list[Figures]:
    return [{"rate": value} for value in values]


@pytest.mark.parametrize(
    ("line", "held"),
    [
        (Line("", at_least=100), True),
        (Line("", at_least=101), False),
        (Line("", at_most=100), True),
        (Line("", at_most=99), False),
        (Line(""), None),
        (Line("", ceilings=("bare",), least_share=0.5), True),
        (Line("", ceilings=("bare",), least_share=0.51), False),
        (Line("", at_least=1, ceilings=("bare",), least_share=0.51), False),
        (Line("", ceilings=("bare",), most_share=0.5), True),
        (Line("", ceilings=("bare",), most_share=0.49), False),
        (Line("", ceilings=("not measured",), least_share=0.51), None),
    ],
)
def test_the_median_is_held_to_the_bar(line: Line, held: bool | None) -> None:
    own = rates(1, 100, 1_000)
    assert is_held(line, own, {"bare": rates(2, 200, 2_000)}) is held


def test_a_share_is_of_the_same_round() -> None:
    line = Line("", ceilings=("bare",))
    assert shares(line, rates(10, 20, 30), {"bare": rates(10, 40, 30)}) == [1.0]


def test_pairs_say_how_much_worse_the_full_one_is() -> None:
    empty = {"drain": rates(100, 100), "idle": [{"p50": 2.0}]}
    full = {"drain": rates(90, 80), "idle": [{"p50": 4.0}]}
    pairs = Pairs("", empty, full, {})
    assert pairs.ratios("drain") == [0.9, 0.8]
    assert pairs.ratios("idle") == [0.5]


def test_spread_and_percentile() -> None:
    assert spread([3, 1, 2, 10]) == (1, 2.5, 10)
    hundred = [float(n) for n in range(100)]
    assert [percentile(hundred, share) for share in (0.0, 0.5, 0.99, 1.0)] == [0, 50, 99, 99]


def test_every_scenario_has_a_name_of_its_own_and_known_ceilings() -> None:
    every = scenarios(60_000)
    names = [scenario.name for scenario in every]
    assert len(set(names)) == len(names)
    for scenario in every:
        for line in scenario.lines:
            assert set(line.ceilings) <= set(names), line


def test_processor_time_counts_children_that_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    before, meter = cpu_of(os.getpid()), Meter(us=os.getpid())
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert cpu_of(os.getpid()) - before >= 0.15
    assert meter.read(100)["us_cpu"] >= 1.5  # seconds for 1,000


# --- the guard ---


def drained(rate: float, *cpu: float) -> Figures:
    return {"rate": rate} | dict(zip(("app_cpu", "postgres_cpu", "redis_cpu"), cpu, strict=True))


@pytest.mark.parametrize(
    ("rate", "app_cpu", "told"),
    [(800, 0.025, []), (800, 0.06, ["a job of the drain costs"]), (400, 0.025, ["the drain reaches 40%"])],
)
def test_the_guard_tells_what_was_lost(rate: float, app_cpu: float, told: list[str]) -> None:
    ceiling, own = drained(1_000, 0.02, 0.02, 0.001), drained(rate, app_cpu, 0.025, 0.004)
    noise = drained(10, 1.0, 1.0, 1.0)  # one pair that something came between
    sentences = losses([(ceiling, own), (ceiling, noise), (ceiling, own)], most_cpu=1.6, least_rate=0.5)
    assert [sentence.startswith(start) for sentence, start in zip(sentences, told, strict=True)] == [True] * len(told)


# --- rows made by SQL ---


def counted(url: str) -> dict[tuple[str, str], int]:
    database = Database(url)
    try:
        found = database.json(f"SELECT json_agg(c) FROM ({SQL['count_jobs']}\n) c WHERE n <> 0")
    finally:
        database.close()
    return {(each["queue"], each["status"]): each["n"] for each in found}


def test_finished_rows_agree_with_the_counters_and_lie_in_their_days(database_url: str) -> None:
    rows.add_finished(database_url, 1_000)
    assert counted(database_url) == {(name, "completed"): 200 for name in ("default", "q1", "q2", "q3", "q4")}
    database = Database(database_url)
    try:
        days = database.fetch("SELECT count(DISTINCT job_day(id)) FROM jobs_done")
        assert rows.DAYS - 1 <= days <= rows.DAYS
        assert database.fetch("SELECT count(*) FROM jobs_done_default") == 0
        # What a dropped day takes off the counters is what they hold for it.
        wrong = """
            SELECT count(*) FROM (SELECT queue, job_day(id) AS bucket, count(*) AS n FROM jobs_done GROUP BY 1, 2) d
            LEFT JOIN counter_deltas USING (queue, bucket, n) WHERE after IS NULL
        """
        assert database.fetch(wrong) == 0
    finally:
        database.close()


@pytest.mark.parametrize(("later", "status", "due"), [(False, "pending", 300), (True, "scheduled", 0)])
def test_waiting_rows_agree_with_the_counters(database_url: str, later: bool, status: str, due: int) -> None:
    rows.add_waiting(database_url, 300, later=later)
    assert counted(database_url) == {("default", status): 300}
    database = Database(database_url)
    try:
        assert database.fetch("SELECT count(*) FROM jobs WHERE run_at <= now()") == due
    finally:
        database.close()


# --- the soak ---

REQUEST = """
INSERT INTO jobs_done (id, owner, queue, type, priority, attempt, max_attempts, rescues, run_epoch, run_at, timeout, created_at,
                       finished_at, flags, tags, payload)
SELECT gen_random_uuid(), 0, 'default', 'noop', 5, 1, 5, 0, 7, now(), 60, now(), now(), 0, '{{}}', '{{"request": {number}}}'
FROM generate_series(1, {jobs})
"""


def test_a_lost_job_is_seen(database_url: str) -> None:
    database = Database(database_url)
    try:
        for number, jobs in ((1, BULK), (2, BULK - 1), (4, BULK), (5, 50), (7, BULK)):
            database.execute(REQUEST.format(number=number, jobs=jobs))
        sent = Sent(accepted={1, 2, 3}, unanswered={4, 5, 6})
        sentences = lost(database, sent)
    finally:
        database.close()
    assert [sentence.split(",")[0] for sentence in sentences] == [
        "request 2 was accepted",
        "request 3 was accepted",
        "request 5 was not answered",
        *sentences[3:],
    ]
    assert sentences[3:] == ["1 requests are there that were never sent"]


def test_only_what_grows_is_told() -> None:
    steady = {
        "rate": 10_000.0,
        "p99": 20.0,
        "worst": 300.0,
        "back": 1.2,
        "memory": 100.0,
        "dead": 50_000.0,
        "live": 50.0,
    }
    steady |= {"backlog": 500.0, "spin": 30.0}
    lines = [dict(steady) for _ in range(9)]
    assert growing(lines) == []
    for line in lines[-3:]:
        line |= {"memory": 140.0, "rate": 7_000.0}
    assert [sentence.partition(":")[0] for sentence in growing(lines)] == ["rate", "memory"]


@pytest.mark.parametrize(("spin", "told"), [(30.0, ["p99", "back"]), (45.0, [])])
def test_what_takes_time_may_grow_as_the_machine_becomes_slower(spin: float, told: list[str]) -> None:
    line = {"rate": 10_000.0, "p99": 40.0, "worst": 300.0, "back": 1.2, "memory": 100.0, "dead": 0.0, "live": 50.0}
    lines = [line | {"backlog": 0.0, "spin": 30.0} for _ in range(6)]
    lines += [line | {"backlog": 0.0, "spin": spin, "p99": 63.0, "back": 1.8} for _ in range(3)]
    assert [sentence.partition(":")[0] for sentence in growing(lines)] == told


# --- the command ---


def test_the_command_measures_and_writes_what_it_measured(tmp_path: Path) -> None:
    file, page = tmp_path / "figures.json", tmp_path / "figures.md"
    options = [
        "--only",
        "drain",
        "bare500",
        "--jobs",
        "3000",
        "--rounds",
        "2",
        "--json",
        str(file),
        "--markdown",
        str(page),
        "--data",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *options],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(file.read_text())
    drain = written["scenarios"]["drain"]
    assert [len(written["scenarios"][name]["rounds"]) for name in ("drain", "bare500")] == [2, 2]
    assert drain["median"]["rate"] > 0
    assert {"app_cpu", "postgres_cpu", "redis_cpu", "memory", "wal", "table", "index"} <= drain["median"].keys()
    assert "drain, 500 at once" in done.stdout
    assert {"Python", "PostgreSQL"} <= written["versions"].keys()
    assert "\n| drain, 500 at once | " in page.read_text()


def test_a_name_that_is_not_known_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--only", "nothing"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "There is no nothing. There are: drain " in done.stderr
