from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import pytest

from jobflow import registry, retry
from jobflow.context import Context
from jobflow.errors import Invalid, SettingsError
from jobflow.registry import Registry, pointer


class Size(msgspec.Struct):
    width: Annotated[int, msgspec.Meta(ge=1)]


class Resize(msgspec.Struct):
    url: str
    sizes: list[Size] = []
    names: dict[str, int] = {}


@dataclass
class Plain:
    a: int


class Typed(TypedDict):
    a: int


class Picky(msgspec.Struct):
    a: int

    def __post_init__(self) -> None:
        if self.a == 1:
            raise ValueError("one is not enough")
        if self.a == 2:
            raise KeyError("two")


class Decorated:
    pass


@pytest.fixture
def jobs() -> Registry:
    return Registry()


def test_a_handler_stays_a_plain_function_and_is_found_by_name(jobs: Registry) -> None:
    async def handler(payload: dict[str, Any]) -> None: ...

    def backoff(attempt: int) -> float:
        return 1.0

    assert jobs.job("a.b", queue="media", priority=0, timeout=60, max_attempts=10, backoff=backoff)(handler) is handler
    found = jobs.get("a.b")
    assert found is not None
    assert (found.name, found.handler, found.queue, found.priority) == ("a.b", handler, "media", 0)
    assert (found.timeout, found.max_attempts, found.backoff) == (60.0, 10, backoff)
    assert (found.takes_context, found.runs_in, found.payload_type) == (False, "loop", dict)
    assert jobs.get("a.c") is None
    assert list(jobs.types) == ["a.b"]


def test_what_nobody_says_has_defaults(jobs: Registry) -> None:
    @jobs.job("a")
    def handler(payload, ctx):  # type: ignore[no-untyped-def]
        ...

    found = jobs.types["a"]
    assert (found.queue, found.priority, found.timeout, found.max_attempts) == ("default", 5, 300.0, 20)
    assert (found.backoff, found.takes_context, found.runs_in) == (retry.default, True, "thread")
    assert jobs.defaults_for("a") is found
    unhandled = jobs.defaults_for("b")
    assert (unhandled.queue, unhandled.priority, unhandled.timeout, unhandled.max_attempts) == ("default", 5, 300.0, 5)


def test_registries_do_not_know_each_other(jobs: Registry) -> None:
    @jobs.job("only.here")
    async def handler(payload: dict[str, Any]) -> None: ...

    assert Registry().get("only.here") is None
    assert registry.REGISTRY.get("only.here") is None
    with pytest.raises(TypeError):
        jobs.types["x"] = jobs.types["only.here"]  # type: ignore[index]


async def ok(payload: dict[str, Any]) -> None: ...
async def no_parameters() -> None: ...
async def three(payload: dict[str, Any], ctx: Context, more: int) -> None: ...
async def keyword(payload: dict[str, Any], *, ctx: Context) -> None: ...
async def rest(*payload: Any) -> None: ...
async def number(payload: int) -> None: ...
async def items(payload: list[dict[str, Any]]) -> None: ...
async def context_first(ctx: Context) -> None: ...
async def custom(payload: Decorated) -> None: ...
async def unresolved(payload: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def yields(payload: dict[str, Any]) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("options", "handler", "error", "words"),
    [
        ({"name": ""}, ok, ValueError, "no name for a job type"),
        ({"name": "a b"}, ok, ValueError, "no name for a job type"),
        ({"name": "a\n"}, ok, ValueError, "no name for a job type"),
        ({"name": "a" * 129}, ok, ValueError, "no name for a job type"),
        ({"queue": "Media"}, ok, ValueError, "no name for a queue"),
        ({"priority": 10}, ok, ValueError, "priority"),
        ({"priority": -1}, ok, ValueError, "priority"),
        ({"priority": 1.5}, ok, ValueError, "priority"),
        ({"timeout": 0}, ok, ValueError, "timeout"),
        ({"timeout": 86_401}, ok, ValueError, "timeout"),
        ({"timeout": float("nan")}, ok, ValueError, "timeout"),
        ({"max_attempts": 0}, ok, ValueError, "max_attempts"),
        ({"max_attempts": 101}, ok, ValueError, "max_attempts"),
        ({"backoff": 5}, ok, ValueError, "backoff"),
        ({}, no_parameters, TypeError, "takes (payload) or (payload, ctx)"),
        ({}, three, TypeError, "takes (payload) or (payload, ctx)"),
        ({}, keyword, TypeError, "takes (payload) or (payload, ctx)"),
        ({}, rest, TypeError, "takes (payload) or (payload, ctx)"),
        ({}, number, TypeError, "a payload is a JSON object"),
        ({}, items, TypeError, "a payload is a JSON object"),
        ({}, context_first, TypeError, "a payload is a JSON object"),
        ({}, custom, TypeError, "a payload is a JSON object"),
        ({}, unresolved, TypeError, "cannot be resolved"),
        ({}, yields, TypeError, "does not yield"),
    ],
)
def test_what_cannot_work_fails_at_import_and_names_handler_and_module(
    jobs: Registry, options: dict[str, Any], handler: Callable[..., Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as raised:
        jobs.job(**{"name": "a", **options})(handler)
    assert f"{handler.__qualname__} in {__name__}: " in str(raised.value)
    assert words in str(raised.value)
    assert not jobs.types


def test_a_name_is_given_once(jobs: Registry) -> None:
    jobs.job("a")(ok)
    with pytest.raises(ValueError, match=f"the job type 'a' is taken by ok in {__name__}"):
        jobs.job("a")(ok)


def test_job_without_a_name_says_how_it_is_written(jobs: Registry) -> None:
    with pytest.raises(TypeError, match="not @job"):
        jobs.job(ok)  # type: ignore[arg-type]


def test_a_decorated_coroutine_runs_on_the_loop(jobs: Registry) -> None:
    import functools

    @functools.wraps(ok)
    def wrapper(*args: Any) -> Any:
        return ok(*args)

    jobs.job("a")(wrapper)
    assert jobs.types["a"].runs_in == "loop"


def registered(jobs: Registry, payload_type: Any) -> registry.JobType:
    async def handler(payload): ...  # type: ignore[no-untyped-def]

    handler.__annotations__["payload"] = payload_type
    jobs.job("t")(handler)
    return jobs.types["t"]


@pytest.mark.parametrize(
    ("payload_type", "text", "expected"),
    [
        (dict, '{"a": [1]}', {"a": [1]}),
        (Any, '{"a": [1]}', {"a": [1]}),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (dict[int, int], '{"1": 1}', {1: 1}),
        (Size, '{"width": 3}', Size(3)),
        (Size | None, '{"width": 3}', Size(3)),
        (Annotated[Size, "note"], '{"width": 3}', Size(3)),
        (Plain, '{"a": 1}', Plain(1)),
        (Typed, '{"a": 1}', {"a": 1}),
        ("Size", '{"width": 3}', Size(3)),
    ],
)
def test_the_annotation_is_the_payload_type(jobs: Registry, payload_type: Any, text: str, expected: Any) -> None:
    type_ = registered(jobs, payload_type)
    assert type_.decode(text) == expected
    type_.validate(msgspec.json.decode(text))


@pytest.mark.parametrize(
    ("tree", "place", "words"),
    [
        ({}, "/payload", "missing required field `url`"),
        ({"url": 1}, "/payload/url", "Expected `str`, got `int`"),
        ({"url": "", "sizes": [{"width": 1}, {"width": 0}]}, "/payload/sizes/1/width", ">= 1"),
        ({"url": "", "sizes": {}}, "/payload/sizes", "Expected `array`"),
        ({"url": "", "names": {"x": "y"}}, "/payload/names", "Expected `int`"),
    ],
)
def test_a_payload_that_does_not_fit_is_pointed_at(jobs: Registry, tree: Any, place: str, words: str) -> None:
    type_ = registered(jobs, Resize)
    for check, value in ((type_.validate, tree), (type_.decode, msgspec.json.encode(tree).decode())):
        with pytest.raises(Invalid) as raised:
            check(value)
        (fault,) = raised.value.faults
        assert fault.pointer == place
        assert words in fault.detail
        assert "$" not in fault.detail


@pytest.mark.parametrize(("a", "words"), [(1, "one is not enough"), (2, "KeyError")])
def test_a_payload_class_may_refuse_in_any_way(jobs: Registry, a: int, words: str) -> None:
    type_ = registered(jobs, Picky)
    with pytest.raises(Invalid, match=words):
        type_.validate({"a": a})
    with pytest.raises(Invalid, match=words):
        type_.decode(f'{{"a": {a}}}')


def test_a_dict_payload_must_be_an_object(jobs: Registry) -> None:
    type_ = registered(jobs, dict)
    type_.validate({"anything": [1, {"goes": None}]})
    with pytest.raises(Invalid):
        type_.decode("[1]")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("$", ""), ("$.a", "/a"), ("$.a[0].b", "/a/0/b"), ("$[3]", "/3"), ("$.a/b~c", "/a~1b~0c"), ("$.a[...].b", "/a")],
)
def test_paths_become_pointers(path: str, expected: str) -> None:
    assert pointer(path) == expected


async def test_the_lifespan_surrounds_the_state(jobs: Registry) -> None:
    steps = []

    @jobs.lifespan
    async def resources() -> AsyncIterator[str]:
        steps.append("open")
        yield "state"
        steps.append("closed")

    async with jobs.state() as state:
        assert (state, steps) == ("state", ["open"])
    assert steps == ["open", "closed"]


async def test_without_a_lifespan_there_is_no_state(jobs: Registry) -> None:
    async with jobs.state() as state:
        assert state is None


def test_there_is_one_lifespan_and_it_yields(jobs: Registry) -> None:
    async def first() -> AsyncIterator[None]:
        yield

    async def asks(x: int) -> AsyncIterator[None]:
        yield

    for wrong in (ok, asks, no_parameters):
        with pytest.raises(TypeError, match=f"in {__name__}: @lifespan takes"):
            jobs.lifespan(wrong)  # type: ignore[arg-type]
    jobs.lifespan(first)
    with pytest.raises(ValueError, match=f"there is a @lifespan already: .*first in {__name__}"):
        jobs.lifespan(first)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder that Python does not look into, as for a console script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def test_modules_of_the_working_folder_are_loaded(folder: Path) -> None:
    (folder / "loaded_here.py").write_text("SEEN = True")
    assert registry.load(["loaded_here"]) is registry.REGISTRY
    assert sys.modules["loaded_here"].SEEN


@pytest.mark.parametrize(
    ("source", "module", "words"),
    [
        (None, "not_there", "there is no module 'not_there'"),
        (None, "not_there.jobs", "there is no module 'not_there'"),
        ("import not_there_either", "mine", "mine cannot be imported: No module named 'not_there_either'"),
        ("1/0", "mine", "mine cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "mine", "mine cannot be imported: SystemExit: 3"),
        ("def", "mine", "mine cannot be imported: SyntaxError"),
        (
            "from jobflow import job\n@job('bad name')\ndef handle(payload): ...",
            "mine",
            "handle in mine: 'bad name' is no name",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_stops_start_up_with_a_sentence(
    folder: Path, source: str | None, module: str, words: str
) -> None:
    if source is not None:
        (folder / f"{module}.py").write_text(source)
    with pytest.raises(SettingsError) as raised:
        registry.load([module])
    assert str(raised.value).startswith("JOBFLOW_HANDLERS: ")
    assert words in str(raised.value)
    assert raised.value.__cause__ is not None
