from __future__ import annotations

import inspect

from jobflow import errors
from jobflow.errors import Conflict, Fault, Invalid, JobflowError


def drawn() -> dict[str, str]:
    """Name → parent, from the tree in the module's docstring."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip("│├└─ ").split(" ")[0]
        if name and ("── " in line or line == "JobflowError"):
            depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
            path[depth:] = [name]
            parents[name] = path[depth - 1] if depth else ""
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]
    real = {c.__name__: "" if c is JobflowError else c.__bases__[0].__name__ for c in classes}
    assert drawn() == real


def test_invalid_says_where_and_what() -> None:
    error = Invalid(Fault("/payload/to", "Expected `str`"), Fault("", "is no object"))
    assert str(error) == "/payload/to: Expected `str`; body: is no object"
    assert error.faults[0].pointer == "/payload/to"


def test_a_conflict_carries_what_the_answer_needs() -> None:
    assert Conflict("no", current_status="completed").extra == {"current_status": "completed"}
