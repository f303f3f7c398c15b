from __future__ import annotations

import re
from pathlib import Path

import pytest

import jobflow
from jobflow.lifecycle import WORDS
from jobflow.pool import Connection
from jobflow.statements import LUA, SQL

PACKAGE = Path(jobflow.__file__).parent
IN_PYTHON = {"create_day": {"day", "low", "high"}, "drop_day": {"day", "seconds"}}  # filled in by Store


def test_every_file_is_loaded_under_its_name() -> None:
    assert {path.stem for path in (PACKAGE / "sql").iterdir()} == set(SQL)
    assert {path.stem for path in (PACKAGE / "lua").iterdir()} == set(LUA)


@pytest.mark.parametrize("name", SQL)
def test_no_placeholder_is_left_and_its_words_are_literals(name: str) -> None:
    text = (PACKAGE / "sql" / f"{name}.sql").read_text("utf-8")
    assert IN_PYTHON.get(name, set()) == set(re.findall(r"\{(\w+)\}", SQL[name]))
    for word in set(re.findall(r"\{(\w+)\}", text)) & set(WORDS):
        assert WORDS[word] in SQL[name]


def test_a_list_of_words_is_filled_in_as_sql_writes_it() -> None:
    assert "IN ('pending', 'scheduled', 'failed')" in SQL["find_due"].replace(
        WORDS["open"], "'pending', 'scheduled', 'failed'"
    )
    assert "j.status || '' = 'processing'" in SQL["complete_jobs"]


@pytest.mark.parametrize("name", LUA)
def test_scripts_are_loaded_as_they_are(name: str) -> None:
    assert (PACKAGE / "lua" / f"{name}.lua").read_text("utf-8") == LUA[name]


async def test_postgres_understands_every_statement(database: Connection) -> None:
    for name in sorted(set(SQL) - set(IN_PYTHON)):
        prepared = await database.prepare(SQL[name])
        places = {
            int(n)
            for n in re.findall(r"\$(\d+)", "\n".join(line.partition("--")[0] for line in SQL[name].splitlines()))
        }
        assert len(places) == len(prepared.get_parameters()), name
