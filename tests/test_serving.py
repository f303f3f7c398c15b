"""Signals as a flag, the port taken early, and the files that are watched."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from jobflow.errors import SettingsError
from jobflow.serving import Stop, file_times, listening
from jobflow.settings import Settings
from tests.support.commands import free_port


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_remembered_and_passed_on(number: signal.Signals) -> None:
    stop, told = Stop(), []
    before = signal.getsignal(number)
    with stop.listening(lambda: told.append("first")):
        os.kill(os.getpid(), number)
        assert stop.requested
        stop.tell = lambda: told.append("second")
        os.kill(os.getpid(), number)
    assert told == ["first", "second"]
    assert before == signal.getsignal(number)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with (stop := Stop()).listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_port_is_ours_at_once() -> None:
    settings = Settings(port=free_port())
    with listening(settings):
        socket.create_connection(("127.0.0.1", settings.port)).close()
        with pytest.raises(SettingsError, match=f"PORT={settings.port + 1}"), listening(settings):
            pass
    with listening(settings):
        pass


def test_a_name_may_stand_for_several_addresses() -> None:
    settings = Settings(host="localhost", port=free_port())
    with listening(settings) as sockets:
        assert sockets
        assert all(one.getsockname()[1] == settings.port for one in sockets)


def test_an_ipv6_address_may_have_brackets() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with listening(Settings(host="[::1]", port=free_port())) as sockets:
        assert [one.family for one in sockets] == [socket.AF_INET6]


def test_an_inherited_socket_is_used_as_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as parent:
        number = os.dup(parent.fileno())
        with listening(Settings(), [number]) as sockets:
            assert sockets[0].getsockname() == parent.getsockname()


def test_changes_of_the_program_are_seen_and_others_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (".jobflow", "app", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file.py").touch()
    (tmp_path / "app" / "data.bin").touch()
    seen = file_times()
    assert [path for path in seen if path.is_relative_to(tmp_path)] == [tmp_path / "app" / "file.py"]
    assert any(path.name == "serving.py" for path in seen)
    os.utime(tmp_path / "app" / "data.bin", (1, 1))
    assert seen == file_times()
    os.utime(tmp_path / "app" / "file.py", (1, 1))
    assert seen != file_times()
