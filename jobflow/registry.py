"""Which job types this process handles: ``@job``, ``@lifespan``, and what a payload must look like.

The only state made at import time is ``REGISTRY``; everything else is handed its registry.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import inspect as shapes

from jobflow import retry
from jobflow.errors import Fault, Invalid, SettingsError
from jobflow.payloads import token

TYPE_NAME = r"^[A-Za-z0-9._:-]{1,128}(?!\n)$"  # `$` alone lets a last line break through
QUEUE_NAME = r"^[a-z0-9_-]{1,64}(?!\n)$"

Handler = TypeVar("Handler", bound=Callable[..., Any])

# A payload is a JSON object, so these are the shapes an annotation may have.
_OBJECTS = (shapes.AnyType, shapes.DictType, shapes.StructType, shapes.TypedDictType, shapes.DataclassType)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a job of a type gets when its submitter says nothing."""

    queue: str = "default"
    priority: int = 5  # 0 runs first, 9 last
    timeout: float = 300.0  # seconds for one attempt
    max_attempts: int = 20


UNHANDLED = Defaults(max_attempts=5)


class JobType(Defaults, frozen=True, kw_only=True):
    """One registered handler."""

    name: str
    handler: Callable[..., Any]
    takes_context: bool
    runs_in: Literal["loop", "thread"]
    payload_type: Any
    backoff: retry.Backoff
    decoder: msgspec.json.Decoder[Any]

    def validate(self, tree: Any) -> None:
        """Check a decoded payload. Raises Invalid with a pointer that starts with ``/payload``."""
        if self.payload_type is dict:
            return
        try:
            msgspec.convert(tree, self.payload_type, str_keys=True)
        except Exception as error:  # a payload class may raise anything from __post_init__
            raise _misfit(error) from error

    def decode(self, text: str) -> Any:
        """The handler's payload from stored JSON. Raises Invalid like ``validate``: the type may have changed since."""
        try:
            return self.decoder.decode(text)
        except Exception as error:
            raise _misfit(error) from error


class Registry:
    """Job types by name, and the lifespan around all of them. Tests make their own; ``REGISTRY`` is the usual one."""

    def __init__(self) -> None:
        self._types: dict[str, JobType] = {}
        self._lifespan: Callable[[], AsyncIterator[Any]] | None = None
        self.types: Mapping[str, JobType] = MappingProxyType(self._types)

    def get(self, name: str) -> JobType | None:
        return self._types.get(name)

    def defaults_for(self, name: str) -> Defaults:
        """The type itself, or what holds for types that nobody handles (5 attempts, 300 s)."""
        return self._types.get(name, UNHANDLED)

    def job(
        self,
        name: str,
        *,
        queue: str = "default",
        priority: int = 5,
        timeout: float = 300.0,
        max_attempts: int = 20,
        backoff: retry.Backoff = retry.default,
    ) -> Callable[[Handler], Handler]:
        """Register a function as the handler of the job type ``name``; the function itself stays as it is.

        The handler takes ``(payload)`` or ``(payload, ctx)``. The annotation of its first parameter is the payload's
        type: a msgspec Struct, a dataclass, a TypedDict, or ``dict`` (the default) for any object. A plain ``def`` runs
        in a thread.

        queue: where its jobs go unless the submitter says otherwise.
        priority: 0 to 9, 0 runs first.
        timeout: seconds for one attempt, 0.1 to 86,400.
        max_attempts: 1 to 100, all runs counted.
        backoff: the attempt that failed, from 1 → seconds until the next; 2^attempt by default.

        Raises ValueError (a bad or taken name, a value out of bounds) and TypeError (a signature or payload type that
        cannot work); both name the handler and its module.
        """
        if callable(name):
            raise TypeError(f'{_where(name)}: write @job("name.of.the.type"), not @job')

        def register(handler: Handler) -> Handler:
            where = _where(handler)
            _check_bounds(where, name, queue, priority, timeout, max_attempts, backoff)
            if name in self._types:
                raise ValueError(f"{where}: the job type {name!r} is taken by {_where(self._types[name].handler)}")
            payload_type, takes_context = _check_signature(where, handler)
            self._types[name] = JobType(
                name=name,
                handler=handler,
                takes_context=takes_context,
                runs_in="loop" if inspect.iscoroutinefunction(inspect.unwrap(handler)) else "thread",
                payload_type=payload_type,
                queue=queue,
                priority=priority,
                timeout=float(timeout),
                max_attempts=max_attempts,
                backoff=backoff,
                decoder=msgspec.json.Decoder(payload_type),
            )
            return handler

        return register

    def lifespan(self, function: Callable[[], AsyncIterator[Any]]) -> Callable[[], AsyncIterator[Any]]:
        """Run this async generator function once per process, around all jobs; what it yields is ``ctx.state``.

        Raises TypeError (not an async generator function without parameters) and ValueError (a second one).
        """
        where = _where(function)
        if not inspect.isasyncgenfunction(function) or inspect.signature(function).parameters:
            raise TypeError(f"{where}: @lifespan takes an `async def` without parameters that yields once")
        if self._lifespan is not None:
            raise ValueError(f"{where}: there is a @lifespan already: {_where(self._lifespan)}")
        self._lifespan = function
        return function

    @asynccontextmanager
    async def state(self) -> AsyncIterator[Any]:
        """Enter the lifespan and give what it yields; None without one."""
        if self._lifespan is None:
            yield None
            return
        async with asynccontextmanager(self._lifespan)() as state:
            yield state


REGISTRY = Registry()
job = REGISTRY.job
lifespan = REGISTRY.lifespan


def load(modules: Sequence[str]) -> Registry:
    """Import the modules that register handlers and give ``REGISTRY``.

    Raises SettingsError: one of them cannot be imported; it says which, and why.
    """
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script, unlike `python -m`, does not see the working folder
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if module != missing and not module.startswith(f"{missing}."):
                raise SettingsError(f"JOBFLOW_HANDLERS: {module} cannot be imported: {error}.") from error
            raise SettingsError(
                f"JOBFLOW_HANDLERS: there is no module {missing!r}, neither in {os.getcwd()} nor installed."
            ) from error
        except (Exception, SystemExit) as error:
            cause = f"{type(error).__name__}: {error}"
            raise SettingsError(f"JOBFLOW_HANDLERS: {module} cannot be imported: {cause}") from error
    return REGISTRY


def pointer(path: str) -> str:
    """msgspec's ``$.a[0].b`` as the JSON Pointer ``/a/0/b``. It ends where msgspec names no key (``[...]``)."""
    steps, end = [], 1
    while match := _STEP.match(path, end):
        steps.append(token(match[1] or match[2]))
        end = match.end()
    return "".join(steps)


def _misfit(error: Exception) -> Invalid:
    if not isinstance(error, msgspec.DecodeError | msgspec.ValidationError):
        return Invalid(Fault("/payload", f"{type(error).__name__}: {error}"))
    detail, _, place = str(error).partition(" - at ")
    return Invalid(Fault("/payload" + pointer(place.removeprefix("`key` in ").strip("`")), detail))


def _where(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", repr(function))
    return f"{name} in {getattr(function, '__module__', 'an unknown module')}"


def _check_bounds(
    where: str, name: str, queue: str, priority: int, timeout: float, max_attempts: int, backoff: retry.Backoff
) -> None:
    if not (isinstance(name, str) and re.fullmatch(TYPE_NAME, name)):
        raise ValueError(f"{where}: {name!r} is no name for a job type: 1 to 128 of A-Z a-z 0-9 . _ : -")
    if not (isinstance(queue, str) and re.fullmatch(QUEUE_NAME, queue)):
        raise ValueError(f"{where}: {queue!r} is no name for a queue: 1 to 64 of a-z 0-9 _ -")
    if not (isinstance(priority, int) and 0 <= priority <= 9):
        raise ValueError(f"{where}: priority is a whole number from 0 (first) to 9, not {priority!r}")
    if not (isinstance(timeout, int | float) and 0.1 <= timeout <= 86_400):
        raise ValueError(f"{where}: timeout is 0.1 to 86,400 seconds, not {timeout!r}")
    if not (isinstance(max_attempts, int) and 1 <= max_attempts <= 100):
        raise ValueError(f"{where}: max_attempts is a whole number from 1 to 100, not {max_attempts!r}")
    if not callable(backoff):
        raise ValueError(f"{where}: backoff is a function from the attempt to seconds, not {backoff!r}")


def _check_signature(where: str, handler: Callable[..., Any]) -> tuple[Any, bool]:
    """(payload type, whether it takes a Context)."""
    inner = inspect.unwrap(handler)
    function = inner.__func__ if inspect.ismethod(inner) else inner
    if not inspect.isfunction(function) or inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise TypeError(f"{where}: a handler is an `async def` or `def` function that does not yield")
    parameters = list(inspect.signature(inner).parameters.values())
    by_position = all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    if not by_position or len(parameters) not in (1, 2) or parameters[0].name in ("self", "cls"):
        raise TypeError(f"{where}: a handler takes (payload) or (payload, ctx), not {inspect.signature(inner)}")
    annotation = parameters[0].annotation
    if isinstance(annotation, str):  # from __future__ import annotations
        try:
            annotation = eval(annotation, function.__globals__)  # noqa: S307  (the module's own source)
        except Exception as error:
            raise TypeError(f"{where}: the payload's type {annotation!r} cannot be resolved: {error}") from error
    return _check_payload_type(where, annotation), len(parameters) == 2


def _check_payload_type(where: str, annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty or annotation in (Any, object, dict, dict[str, Any], dict[str, object]):
        return dict
    try:
        shape = shapes.type_info(annotation)
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from error
    while isinstance(shape, shapes.Metadata):
        shape = shape.type
    if not any(
        isinstance(kind, _OBJECTS) for kind in (shape.types if isinstance(shape, shapes.UnionType) else [shape])
    ):
        raise TypeError(
            f"{where}: a payload is a JSON object; annotate it with a msgspec Struct, a dataclass, a TypedDict or dict, "
            f"not {getattr(annotation, '__name__', annotation)}"
        )
    return annotation
