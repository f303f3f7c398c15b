"""Guards of the product that a test takes out, to see that an invariant breaks without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from jobflow.engine.completer import Endings
from jobflow.engine.engine import Engine
from jobflow.engine.lease import Lease
from jobflow.engine.scheduler import Scheduler
from jobflow.intake import Intake
from jobflow.ledger import Submitted
from tests.simulation.postgres import START

# In the statements and the servers, which the model switches off itself: what they guard.
STATEMENTS = {
    "fence": "an ending is accepted only from the run that was claimed",
    "revoke": "a rescue raises the epoch, so that the old worker sees that its ending was not accepted",
    "status check": "only open jobs are claimed",
    "worker check": "only living processes claim",
    "clock epoch": "an epoch that a crash forgot is not given out again",
    "cancel wins": "a run that was asked to stop does not run again, however it ends",
    "no return": "a process that was marked lost does not come back under its old identity",
    "mark first": "a process is marked lost before its runs are taken",
    "late judgement": "a judgement that arrives late is void",
    "key locks": "one writer at a time for each key",
    "commit first": "a transaction is answered after its commit",
}


async def _insert_again(self: Any, batch: Any, lost: Any) -> Any:
    return await self._insert(batch)


async def _hope(self: Any, batch: Any, lost: Any) -> Any:
    return [Submitted(jobs=submission.jobs, created_at=START) for submission in batch]


async def _nothing(self: Any, *args: Any) -> int:
    return 0


def _put(self: Any, ending: Any) -> None:
    self._slots.release([ending.change.run])
    self.waiting.append(ending)
    self.wake.set()


# In the engine and the client.
PRODUCT: dict[str, tuple[str, Any, str, Any]] = {
    "healthy observer": ("only a process that is well itself judges others", Lease, "healthy", lambda self: True),
    "self-audit": ("claims whose answer was lost are handed back", Engine, "_adopt", lambda self, rows, audit: None),
    "sweep": ("what Redis lost is found in Postgres", Scheduler, "_sweep", _nothing),
    "slots": ("a slot is freed when Postgres has answered", Endings, "put", _put),
    "ask": ("an insert whose answer was lost is not repeated", Intake, "_ask", _insert_again),
    "acknowledge": ("an insert whose answer was lost is not acknowledged unasked", Intake, "_ask", _hope),
}

GUARDS = (*STATEMENTS, *PRODUCT)

# What happens in a world that shall show what a guard is for, where it is not a little of everything.
REVEALED_BY: dict[str, dict[str, int]] = {
    "fence": {"pause": 3, "cut": 1},
    "revoke": {"pause": 3, "cut": 1},
    "worker check": {"stale": 1},
    "clock epoch": {"postgres_crash": 1},
    "no return": {"pause": 1},
    "late judgement": {"postgres_still": 1},
    "healthy observer": {"postgres_crash": 1},
    "self-audit": {"lossy": 1},
    "sweep": {"kill": 1, "lossy": 2},
    "key locks": {"rush": 1},
    "ask": {"lossy": 1},
    "acknowledge": {"lossy": 1},
}


@contextmanager
def switched_off(off: Iterable[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for guard in off:
            if guard in PRODUCT:
                _, owner, name, instead = PRODUCT[guard]
                stack.enter_context(patch.object(owner, name, instead))
            elif guard not in STATEMENTS:
                raise ValueError(f"there is no guard {guard!r}; there are {', '.join(GUARDS)}")
        yield
