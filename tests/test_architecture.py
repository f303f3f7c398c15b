"""Rules that a machine can check. An exception stands in a list here, with its reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobflow.lifecycle import WORDS, Status, mermaid

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jobflow"
MODULES = sorted(PACKAGE.rglob("*.py"))
SQL = sorted((PACKAGE / "sql").glob("*.sql"))
LUA = sorted((PACKAGE / "lua").glob("*.lua"))

# errors ← payloads, retry, settings ← lifecycle ← registry, events ← store, broker ← client ← engine ← web ← app ← cli
# What each module (each package, for commands, doctor, embedded, engine and web) may import from jobflow.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "retry": set(),
    "paths": set(),
    "protocol": set(),
    "batcher": set(),
    "payloads": {"errors"},
    "failpoints": {"errors"},
    "settings": {"errors", "failpoints"},
    "pool": {"errors"},
    "lifecycle": {"errors"},
    "events": {"lifecycle"},
    "overview": {"lifecycle"},
    "statements": {"lifecycle"},
    "kinds": {"lifecycle", "tables"},
    "selection": {"kinds", "lifecycle", "statements", "tables"},
    "tables": {"lifecycle"},
    "context": {"events", "lifecycle"},
    "registry": {"errors", "payloads", "retry"},
    "jobflow": {"context", "registry"},
    "demo": {"jobflow"},  # like anybody's handlers: never a module inside
    "logs": {"events", "lifecycle", "settings"},
    "metrics": {"events", "lifecycle", "overview"},
    "migrate": {"errors", "paths", "pool", "tables"},
    "embedded": {"errors"},
    "listing": {"errors", "kinds", "lifecycle", "pool", "selection"},
    "store": {"errors", "lifecycle", "listing", "overview", "pool", "statements"},
    "broker": {"errors", "statements"},
    "pusher": {"broker", "errors", "failpoints"},
    "ledger": {"errors", "lifecycle"},
    "intake": {"batcher", "errors", "failpoints", "ledger", "lifecycle", "pool", "store"},
    "client": {
        *("errors", "events", "lifecycle", "payloads", "registry"),
        *("batcher", "broker", "intake", "ledger", "listing", "overview", "pool", "pusher", "store"),
    },
    "engine": {
        *("context", "errors", "events", "failpoints", "lifecycle", "payloads", "registry", "retry", "settings"),
        *("batcher", "broker", "client", "pool", "pusher", "statements", "store"),
    },
    "web": {
        *("errors", "events", "lifecycle", "payloads", "registry", "settings", "jobflow", "paths"),
        *("broker", "client", "engine", "listing", "metrics", "overview", "store"),
    },
    "serving": {"app", "errors", "jobflow", "protocol", "settings"},
    "doctor": {"embedded", "errors", "jobflow", "migrate", "registry", "serving", "settings"},
    "commands": {"doctor", "embedded", "errors", "jobflow", "lifecycle", "migrate", "serving", "settings"},
    "cli": {"commands", "errors", "jobflow"},
    "__main__": {"cli"},
}
KNOWS_ALL = "app"  # builds every part and hands it out

USES_LOGGING = {
    "logs.py": "takes over what libraries log",
    "serving.py": "silences uvicorn's repetition of a refusal",
}

FILE_LINES = 350
LONG_FILES = {
    "store.py": "one short method for each statement; splitting them would hide which there are",
}
FUNCTION_LINES = 60
LONG_FUNCTIONS: dict[str, str] = {}

# Modules whose tests do not stand in the file of the same name: where they stand instead.
TESTED_IN = {
    "__init__.py": "test_context.py",  # re-exports
    "__main__.py": "test_cli.py",  # one call
    "kinds.py": "test_selection.py",  # the part of a statement that goes by an index
    "ledger.py": "test_intake.py",  # decides what the intake reads and writes
    "paths.py": "test_migrate.py",  # two constants
    "commands/__init__.py": "test_cli.py",  # empty
    "commands/common.py": "test_cli.py",  # settings and addresses, as every command has them
    "commands/dev.py": "test_cli.py",
    "commands/serve.py": "test_cli.py",
    "commands/migrate.py": "test_cli.py",
    "doctor/__init__.py": "commands/test_doctor.py",  # empty
    "doctor/examine.py": "commands/test_doctor.py",  # runs all checks
    "doctor/finding.py": "commands/test_doctor.py",  # a tuple
    "statements.py": "test_architecture.py",  # loads the files that are checked here
    "tables.py": "test_migrate.py",  # data, compared with the head schema
    "engine/__init__.py": "engine/test_engine.py",  # re-exports
    "web/__init__.py": "web/test_app.py",  # re-exports
    "web/dashboard/__init__.py": "web/dashboard/test_page.py",  # collects the routes
    "web/docs/__init__.py": "web/docs/test_page.py",  # re-exports
}
TESTED_TOGETHER = {
    "embedded": "test_embedded.py"
}  # its modules mean something only together: servers that start and stop

# Statements that no method of Store has to itself.
SHARED_SQL = {
    "estimate_tag": "list_jobs: a part of its statements",
    "audit_runs": "heartbeat: a thread with a connection of its own",
    "beat": "heartbeat",
    "register_worker": "heartbeat",
    "count_jobs": "totals and queues read several in one snapshot",
    "count_due": "totals and queues",
    "oldest_due": "queues",
    "queue_rates": "queues",
    "list_workers": "workers",
    "minutes": "overview",
    "get_attempts": "get_job, in the same snapshot",
    "lock_job": "complete_in, before its completion",
}
# Methods of Store and Broker that run no statement of their own name.
WITHOUT_FILE = {
    "Store": {
        *("connection", "pinned"),  # the pool
        *("list_jobs", "list_ids", "count_matching"),  # free filters: SQLAlchemy Core
        *("totals", "queues", "queue", "workers", "overview"),  # several statements in one snapshot
        "complete_in",  # complete_jobs in somebody's transaction
        "ping",
    },
    "Broker": {"wakes", "hint", "hints", "check", "close"},  # Redis' own commands
}


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def node_of(dotted: str) -> str:
    """The key of MAY_IMPORT for a module: ``jobflow.engine.loop`` → ``engine``."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALL_NODES else "jobflow"


ALL_NODES = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} - {"__init__"}


def imported(path: Path) -> Iterator[str]:
    """Every module of jobflow that ``path`` imports, as nodes of MAY_IMPORT."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (node_of(a.name) for a in node.names if a.name.split(".")[0] == "jobflow")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jobflow":
            yield from (node_of(f"{node.module}.{a.name}") for a in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_leftwards_only(path: Path) -> None:
    own = node_of("jobflow." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    if own != KNOWS_ALL:
        assert set(imported(path)) - {own} <= MAY_IMPORT[own]


def test_the_allowed_imports_have_no_cycle_and_name_only_what_exists() -> None:
    done: set[str] = {KNOWS_ALL}  # nothing but serving imports it, and it imports no serving
    while ready := [name for name, others in MAY_IMPORT.items() if name not in done and others <= done]:
        done.update(ready)
    assert set(MAY_IMPORT) - done == set()
    assert set(MAY_IMPORT) - ALL_NODES <= {"jobflow"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_are_absolute_and_only_logs_logs(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}"
        if isinstance(node, ast.Import) and name_of(path) not in USES_LOGGING:
            assert "logging" not in {alias.name.split(".")[0] for alias in node.names}, f"line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= FILE_LINES or name_of(path) in LONG_FILES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{name_of(path)}:{node.name}"
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES or where in LONG_FUNCTIONS, where


def test_the_lists_of_exceptions_hold_no_more_than_is_needed() -> None:
    for name in LONG_FILES:
        assert (PACKAGE / name).read_text("utf-8").count("\n") > FILE_LINES, name
    assert set(SHARED_SQL) <= {path.stem for path in SQL}
    for owner, methods in WITHOUT_FILE.items():
        assert methods <= public_methods(owner), owner


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_its_tests(path: Path) -> None:
    name = path.relative_to(PACKAGE)
    if name.parts[0] in TESTED_TOGETHER:
        tests = TESTED_TOGETHER[name.parts[0]]
    else:
        tests = TESTED_IN.get(str(name), str(name.with_name(f"test_{name.name}")))
    assert (ROOT / "tests" / tests).is_file()


# --- statements and scripts ---


def public_methods(owner: str) -> set[str]:
    tree = ast.parse((PACKAGE / f"{owner.lower()}.py").read_text("utf-8"))
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner]
    functions = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name for node in functions if not node.name.startswith("_")}


def constants(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text("utf-8")))
    return {node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def header_of(path: Path) -> tuple[list[str], str]:
    """The comment lines a file begins with, and the rest of it without comments."""
    lines = path.read_text("utf-8").splitlines()
    size = next((n for n, line in enumerate(lines) if not line.startswith("--")), len(lines))
    return lines[:size], "\n".join(line.partition("--")[0] for line in lines[size:])


def test_each_statement_is_a_method_of_the_store_and_the_other_way_round() -> None:
    files = {path.stem for path in SQL}
    methods = public_methods("Store")
    assert files - methods == set(SHARED_SQL)
    assert methods - files == WITHOUT_FILE["Store"]
    used = (
        constants(PACKAGE / "store.py")
        | constants(PACKAGE / "engine" / "heartbeat.py")
        | constants(PACKAGE / "selection.py")
    )
    assert files - used == set()


def test_each_script_is_a_method_of_the_broker_and_the_other_way_round() -> None:
    files = {path.stem for path in LUA}
    methods = public_methods("Broker")
    assert files - methods == set()
    assert methods - files == WITHOUT_FILE["Broker"]
    assert files - constants(PACKAGE / "broker.py") == set()


@pytest.mark.parametrize("path", SQL, ids=name_of)
def test_a_statement_says_what_it_does_takes_and_returns(path: Path) -> None:
    header, body = header_of(path)
    said = "\n".join(header)
    assert re.match(rf"-- {path.stem}: \S", header[0])
    assert len([line for line in header if line.startswith("-- Returns: ")]) == 1
    taken = {int(n) for n in re.findall(r"\$(\d+)", body)}
    assert taken == {int(n) for n in re.findall(r"\$(\d+) \S", said)} == set(range(1, len(taken) + 1))
    words = set(re.findall(r"\{(\w+)\}", body)) - set(WORDS)
    assert words <= set(re.findall(r"\{(\w+)\}", said))


@pytest.mark.parametrize("path", LUA, ids=name_of)
def test_a_script_says_what_it_does_takes_and_returns(path: Path) -> None:
    header, body = header_of(path)
    assert re.match(rf"-- {path.stem}: \S", header[0])
    for part in ("KEYS", "ARGV", "Returns"):
        assert len([line for line in header if re.match(rf"-- {part}: \S", line)]) == 1, part
    said = next(line for line in header if line.startswith("-- ARGV: "))
    assert ("none" in said) == ("ARGV" not in body)
    assert "KEYS" in body


# --- the life of a job is written once ---

STATES = {status.value for status in Status}


@pytest.mark.parametrize("path", SQL, ids=name_of)
def test_statements_get_their_words_from_the_lifecycle(path: Path) -> None:
    _, body = header_of(path)
    assert set(re.findall(r"'(\w+)'", body)) & STATES == set()


@pytest.mark.parametrize("path", [p for p in MODULES if p.name not in ("lifecycle.py", "demo.py")], ids=name_of)
def test_python_gets_its_words_from_the_lifecycle(path: Path) -> None:
    assert constants(path) & STATES == set()


def test_the_diagram_in_the_readme_is_the_table() -> None:
    blocks = re.findall(r"^```mermaid\n(.*?)\n```$", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert [block for block in blocks if block.startswith("stateDiagram")] == [mermaid()]
