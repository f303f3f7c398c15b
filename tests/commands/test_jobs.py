"""Lists for people and for scripts."""

from __future__ import annotations

import json

import pytest

from jobflow.commands.jobs import footer, note
from tests.commands.conftest import Call


def submit(call: Call, *arguments: str) -> str:
    return call("enqueue", *arguments).stdout.strip()


def test_a_list_has_a_line_for_each_job_and_says_how_many(call: Call) -> None:
    id = submit(call, "echo", "--tag", "one", "--delay", "600")
    result = call("jobs", "--tag", "one")
    assert result.exit_code == 0
    heads, line = result.stdout.splitlines()
    assert heads.split() == ["ID", "STATUS", "TYPE", "QUEUE", "ATTEMPT", "CREATED", "NOTE"]
    assert line.split()[:5] == [id, "scheduled", "echo", "default", "0/20"]
    assert line.endswith("in 10 m")
    assert result.stderr == "1 of 1 jobs.\n"


def test_the_next_page_is_named(call: Call) -> None:
    ids = {submit(call, "echo", "--tag", "pages") for _ in range(3)}
    first = call("jobs", "--tag", "pages", "--limit", "2")
    cursor = first.stderr.split("--cursor ")[1].strip()
    second = call("jobs", "--tag", "pages", "--limit", "2", "--cursor", cursor)
    seen = [line.split()[0] for page in (first, second) for line in page.stdout.splitlines()[1:]]
    assert len(seen) == 3
    assert set(seen) == ids
    assert "More" not in second.stderr


def test_filters_are_the_servers(call: Call) -> None:
    submit(call, "echo", "--queue", "slow", "--tag", "filters", "--delay", "60")
    submit(call, "noop", "--tag", "filters", "--delay", "60")
    for filter in (["--type", "echo"], ["--queue", "slow"], ["--type", "echo", "--status", "scheduled"]):
        page = json.loads(call("jobs", "--tag", "filters", *filter, "--json").stdout)
        assert [job["type"] for job in page["items"]] == ["echo"], filter
    both = ["--status", "scheduled", "--status", "pending"]
    assert json.loads(call("jobs", "--tag", "filters", *both, "--json").stdout)["total"] == 2


def test_nothing_is_said_to_be_nothing(call: Call) -> None:
    result = call("jobs", "--tag", "nobody's")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No such jobs.\n")


def test_one_job_in_full(call: Call) -> None:
    id = submit(call, "fail", '{"message": "no luck"}', "--max-attempts", "1", "--tag", "x", "--wait").splitlines()[0]
    id = id.split()[1]
    shown = call("jobs", id).stdout
    for part in (id, "dead_letter", "1 of 1", "ValueError: no luck", "Traceback", '"message": "no luck"'):
        assert part in shown
    assert "\x1b" not in shown


def test_what_people_put_in_cannot_steer_the_terminal(call: Call) -> None:
    id = submit(call, "fail", json.dumps({"message": "\x1b[2J\x9b31m"}), "--max-attempts", "1", "--wait")
    id = id.splitlines()[0].split()[1]
    for result in (call("jobs", id), call("jobs", "--type", "fail")):
        assert not set("\x1b\x9b") & set(result.stdout)
        assert "[2J" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("jobs nonsense", "an id is a UUID"),
        ("jobs ../metrics", "an id is a UUID"),
        ("jobs 0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60", "410"),
        ("jobs 0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60 --status failed", "leave the filters out"),
        ("jobs --status broken", "'broken' is not one of"),
        ("jobs --limit 1000", "limit  must be a whole number from 1 to 200"),
    ],
)
def test_refusals(arguments: str, said: str, call: Call) -> None:
    result = call(*arguments.split())
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_a_total_that_is_capped_says_so() -> None:
    assert footer({"items": [1], "total": 10_000, "total_capped": True}) == "1 of 10,000+ jobs."


def test_a_note_tells_what_the_status_does_not() -> None:
    job = {"status": "cancelled", "run_at": "2026-01-01T00:00:00Z", "cancel_reason": "not wanted", "error": None}
    assert note(job) == "not wanted"
    job = {"status": "failed", "run_at": "2026-01-01T00:00:00Z", "cancel_reason": None, "error": None}
    assert note(job) == "due"
    assert note(job | {"error": {"type": "ValueError", "message": "no"}}) == "due; ValueError: no"
