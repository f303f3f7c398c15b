"""Jobs submitted by typing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.commands.conftest import Call


def job(call: Call, id: str) -> Any:
    return json.loads(call("jobs", id, "--json").stdout)


def test_the_id_is_all_that_a_script_reads(call: Call) -> None:
    result = call("enqueue", "echo", '{"a": 1}')
    assert result.exit_code == 0
    assert result.stderr == "echo is pending in the queue default.\n"
    assert job(call, result.stdout.strip())["payload"] == {"a": 1}


def test_without_json_the_payload_is_empty(call: Call) -> None:
    assert job(call, call("enqueue", "echo").stdout.strip())["payload"] == {}


def test_the_payload_may_come_from_standard_input(call: Call) -> None:
    result = call("enqueue", "echo", "-", stdin='{"from": "a pipe"}\n')
    assert job(call, result.stdout.strip())["payload"] == {"from": "a pipe"}


def test_every_option_reaches_the_job(call: Call) -> None:
    options = "--queue slow --priority 1 --delay 3600 --max-attempts 7 --timeout 12 --unique-key u1 --tag a --tag b"
    made = json.loads(call("enqueue", "echo", "{}", *options.split(), "--json").stdout)
    assert made["status"] == "scheduled"
    wanted = {"queue": "slow", "priority": 1, "max_attempts": 7, "timeout": 12, "unique_key": "u1", "tags": ["a", "b"]}
    assert {name: made[name] for name in wanted} == wanted


def test_a_time_may_be_given_instead_of_a_delay(call: Call) -> None:
    time = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")
    made = json.loads(call("enqueue", "echo", "--run-at", time, "--json").stdout)
    assert datetime.fromisoformat(made["run_at"]) == datetime.fromisoformat(time)


def test_the_same_key_makes_one_job(call: Call) -> None:
    first, again = (call("enqueue", "echo", "--idempotency-key", "order-17") for _ in range(2))
    assert first.stdout == again.stdout
    assert "before" not in first.stderr
    assert "It was submitted before." in again.stderr


def test_wait_shows_the_end(call: Call) -> None:
    result = call("enqueue", "sum", '{"a": 1, "b": 2}', "--wait")
    assert result.exit_code == 0
    assert "completed" in result.stdout
    assert result.stdout.endswith("result\n3\n")


def test_wait_is_status_1_when_the_job_is_not_completed(call: Call) -> None:
    result = call("enqueue", "fail", '{"message": "no luck today"}', "--max-attempts", "1", "--wait", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["message"] == "no luck today"


@pytest.mark.parametrize("payload", ["{to: me}", "", "{'a': 1}"])
def test_what_is_no_json_is_never_sent(payload: str, call: Call) -> None:
    result = call("enqueue", "echo", payload)
    assert result.exit_code == 2
    assert "Quote it" in result.stderr
    assert result.stdout == ""


def test_the_servers_faults_are_listed_with_their_places(call: Call) -> None:
    result = call("enqueue", "sum", '{"a": 1, "b": -1}', "--max-attempts", "0")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "  /max_attempts  max_attempts must be 1 to 100" in result.stderr
    result = call("enqueue", "sum", '{"a": 1, "b": -1}')
    assert "  /payload/b  " in result.stderr


def test_what_is_written_twice_reaches_the_server_that_way(call: Call) -> None:
    assert "/payload/a  is given twice" in call("enqueue", "echo", '{"a": 1, "a": 2}').stderr
