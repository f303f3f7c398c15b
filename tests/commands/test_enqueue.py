"""Jobs submitted by typing."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobflow.commands.remote import Away, Remote
from tests.commands.conftest import ROOT, Call
from tests.support.commands import running


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


def test_wait_is_told_by_the_server_and_does_not_ask_again_and_again(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    get = Remote.get
    monkeypatch.setattr(Remote, "get", lambda self, *args: (asked.append(args), get(self, *args))[1])
    monkeypatch.setattr("jobflow.commands.enqueue.PAUSE", 0.05)
    result = call("enqueue", "sleep", '{"seconds": 1.2}', "--wait")
    assert result.exit_code == 0
    assert 1 <= len(asked) <= 4  # when it begins, when it ends, and what happened between two questions


def test_wait_outlasts_a_server_that_is_away_for_a_while(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    get, failures = Remote.get, [Away("gone"), Away("away")]

    def sometimes(self: Remote, *args: Any) -> Any:
        if failures:
            raise failures.pop()
        return get(self, *args)

    monkeypatch.setattr(Remote, "get", sometimes)
    monkeypatch.setattr("jobflow.commands.enqueue.PAUSE", 0.01)
    assert call("enqueue", "echo", "--wait").exit_code == 0
    assert not failures


def test_wait_ends_with_a_server_that_stays_away(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Remote, *args: Any) -> Any:
        raise Away("No server answers")

    monkeypatch.setattr(Remote, "get", never)
    monkeypatch.setattr("jobflow.commands.enqueue.PAUSE", 0.01)
    monkeypatch.setattr("jobflow.commands.enqueue.PATIENCE", 0.05)
    result = call("enqueue", "echo", "--wait")
    assert result.exit_code == 2
    assert "No server answers" in result.stderr


def test_wait_paces_itself_when_the_server_does_not_hold_its_answers(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    get = Remote.get

    def at_once(self: Remote, path: str, params: Any = None) -> Any:
        asked.append(path)
        return get(self, path)

    monkeypatch.setattr(Remote, "get", at_once)
    monkeypatch.setattr("jobflow.commands.enqueue.PAUSE", 0.2)
    began = time.monotonic()
    assert call("enqueue", "sleep", '{"seconds": 1}', "--wait").exit_code == 0
    assert 2 <= len(asked) <= (time.monotonic() - began) / 0.2 + 3  # at once when it begins, and when it has changed


def test_ctrl_c_ends_the_waiting_and_names_the_job(port: int, tmp_path: Path) -> None:
    with running(
        tmp_path, "enqueue", "echo", "--delay", "3600", "--wait", PORT=str(port), PYTHONPATH=str(ROOT)
    ) as command:
        command.wait_for("echo is scheduled")
        assert command.end(signal.SIGINT) == 130
        assert "the job goes on: jobflow jobs 0" in command.said
        assert "Traceback" not in command.said
        assert command.stdout.read_text() == ""


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
