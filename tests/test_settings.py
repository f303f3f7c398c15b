"""Wrong values stop the start with a sentence that names the setting; .env.example tells the truth."""

from __future__ import annotations

import io
import ipaddress
from pathlib import Path

import pytest
from dotenv import dotenv_values

from jobflow.errors import SettingsError
from jobflow.settings import Settings, check_exposure, is_loopback, load, variables

BAD = [
    ("PORT", "0"),
    ("PORT", "65536"),
    ("PORT", "-1"),
    ("PORT", "http"),
    ("PORT", "80.5"),
    ("DATABASE_URL", "mysql://localhost/jobflow"),
    ("DATABASE_URL", "localhost:5432"),
    ("DATABASE_URL", "postgresql:jobflow"),
    ("REDIS_URL", "http://localhost:6379"),
    ("REDIS_URL", "localhost"),
    ("RATE_LIMIT_MAX", "0"),
    ("RATE_LIMIT_MAX", "many"),
    ("RATE_LIMIT_MAX", "10000001"),
    ("RATE_LIMIT_WINDOW", "0.5"),
    ("RATE_LIMIT_WINDOW", "1m"),
    ("WORKER_CONCURRENCY", "-1"),
    ("WORKER_CONCURRENCY", "10001"),
    ("WORKER_CONCURRENCY", "50.5"),
    ("JOBFLOW_HANDLERS", "my-app.jobs"),
    ("JOBFLOW_HANDLERS", "myapp/jobs.py"),
    ("JOBFLOW_HANDLERS", "myapp..jobs"),
    ("JOBFLOW_HANDLERS", ","),
    ("JOBFLOW_THREADS", "0"),
    ("JOBFLOW_ADMIN_TOKEN", "short"),
    ("JOBFLOW_ADMIN_TOKEN", "sixteen letters and spaces"),
    ("JOBFLOW_ADMIN_TOKEN", "schlüsselschlüssel"),
    ("JOBFLOW_AUTH", "no"),
    ("JOBFLOW_AUTH", "OFF"),
    ("JOBFLOW_TRUSTED_PROXIES", "proxy.example"),
    ("JOBFLOW_TRUSTED_PROXIES", "10.0.0.0/33"),
    ("JOBFLOW_TRUSTED_PROXIES", "10.0.0.1, 300.0.0.1"),
    ("JOBFLOW_POOL_SIZE", "7"),
    ("JOBFLOW_REDIS_POOL_SIZE", "501"),
    ("JOBFLOW_LANE_SIZE", "99"),
    ("JOBFLOW_LEASE", "0"),
    ("JOBFLOW_LEASE", "601"),
    ("JOBFLOW_OUTAGE_GRACE", "-1"),
    ("JOBFLOW_GRACE", "forever"),
    ("JOBFLOW_RETENTION_COMPLETED", "-7"),
    ("JOBFLOW_RETENTION_CANCELLED", "36501"),
    ("JOBFLOW_RETENTION_DEAD_LETTER", "7 days"),
    ("JOBFLOW_LOG_LEVEL", "verbose"),
    ("JOBFLOW_LOG_FORMAT", "xml"),
    ("JOBFLOW_FAILPOINTS", "claim=kill"),
    ("JOBFLOW_FAILPOINTS", "claim.popped=explode"),
    ("JOBFLOW_PORT", "8000"),
    ("JOBFLOW_LEASES", "15"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_wrong_value_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: value})
    sentence = str(caught.value)
    assert sentence.startswith(name)
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "field", ["RATE_LIMIT_WINDOW", "JOBFLOW_LEASE", "JOBFLOW_GRACE", "JOBFLOW_RETENTION_COMPLETED"]
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_are_finite(field: str, value: str) -> None:
    with pytest.raises(SettingsError, match=field):
        load({field: value})


def test_the_password_in_a_wrong_url_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"DATABASE_URL": "mysql://me:secret@localhost/jobflow"})
    assert "secret" not in str(caught.value)


def test_nothing_given_means_the_defaults() -> None:
    assert Settings() == load({})
    assert Settings() == load({env: "" for env, *_ in variables()})
    assert Settings() == load({"PATH": "/bin", "HOSTNAME": "here"})


def test_values_are_read() -> None:
    settings = load(
        {
            "PORT": " 8001 ",
            "JOBFLOW_LEASE": "2.5",
            "JOBFLOW_HANDLERS": "a.b, c",
            "JOBFLOW_TRUSTED_PROXIES": "10.1.2.3/8",
        }
    )
    assert settings.port == 8001
    assert settings.beat == 0.5
    assert settings.handler_modules == ["a.b", "c"]
    assert [ipaddress.ip_network("10.0.0.0/8")] == settings.proxy_networks


def test_the_host_names_we_answer_to() -> None:
    assert {"localhost", "127.0.0.1", "[::1]", "jobs.example"} == load({"JOBFLOW_HOSTS": "Jobs.Example"}).allowed_hosts
    assert {"*"} == load({"JOBFLOW_HOSTS": "jobs.example, *"}).allowed_hosts


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.1.1", "localhost.example")),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert expected is is_loopback(host)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"JOBFLOW_HOST": "0.0.0.0", "JOBFLOW_AUTH": "off"},
        {"JOBFLOW_HOST": "0.0.0.0", "JOBFLOW_ADMIN_TOKEN": "x" * 16},
    ],
)
def test_guarded_addresses_are_fine(given: dict[str, str]) -> None:
    check_exposure(load(given))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "jobs.example"])
def test_an_open_address_without_a_guard_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="JOBFLOW_ADMIN_TOKEN"):
        check_exposure(load({"JOBFLOW_HOST": host}))


def example() -> str:
    """What .env.example has to say, from the settings themselves."""
    lines = [
        "# Settings of Jobflow, each with its default. Copy this file to .env and take the # away from what you change.",
        "# The environment wins over .env.",
    ]
    for env, _, default, unit, meaning in variables():
        value = f"{default:g}" if isinstance(default, float) else default
        lines += ["", f"# {meaning}{f' ({unit})' if unit else ''}", f"#{env}={value}"]
    return "\n".join(lines) + "\n"


def test_the_example_file_lists_every_setting() -> None:
    assert example() == Path(__file__).parent.with_name(".env.example").read_text()


def test_the_example_file_with_everything_switched_on_means_the_defaults() -> None:
    text = "\n".join(line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in example().splitlines())
    values = dotenv_values(stream=io.StringIO(text))
    assert {env for env, *_ in variables()} == set(values)
    assert Settings() == load({name: value or "" for name, value in values.items()})
