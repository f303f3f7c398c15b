"""scripts/mutants.toml is true: each guard stands where the list says, and each named test exists."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import load_script

ROOT = Path(__file__).resolve().parent.parent


mutants = load_script("mutants")
MUTANTS = mutants.read_mutants()


def test_names_tell_them_apart() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
    assert len({(m.file, m.old, m.new) for m in MUTANTS}) == len(MUTANTS), "the same guard twice"


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_it_applies_and_its_test_exists(mutant: Any) -> None:
    text = mutant.apply((ROOT / mutant.file).read_text("utf-8"))
    if mutant.file.endswith(".py"):
        ast.parse(text)
    file, _, name = mutant.test.partition("::")
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name.partition("[")[0] in functions


@pytest.mark.parametrize("old", ["absent", "twice"])
def test_a_text_that_is_not_there_exactly_once_is_an_error(old: str) -> None:
    mutant = mutants.Mutant(name="a guard", file="some.py", old=old, new="", test="tests/test_x.py::test_x")
    with pytest.raises(ValueError, match=r"a guard: some\.py has the text"):
        mutant.apply("twice and twice")
