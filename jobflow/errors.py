"""Every error Jobflow raises on purpose.

JobflowError
├── SettingsError          a setting is wrong; start-up stops with this sentence
├── SchemaTooNew           the database was migrated by a newer Jobflow
├── Invalid                what was sent does not fit (422), with a pointer for each fault
├── Malformed              what was sent cannot be read at all (400)
├── NotFound               no such job (404)
├── Pruned                 there may have been such a job, its day was dropped (410)
├── Conflict               not from this state (409)
│   ├── UniqueConflict     a live job holds this unique_key
│   └── KeyInFlight        the first request with this Idempotency-Key still runs
├── KeyReused              this Idempotency-Key was used for another body (422)
├── RunLost                this run was given up: it can end its job no more (for handlers)
└── Unavailable            a server we need is away (503)
    ├── StoreUnavailable   Postgres
    │   └── AnswerLost     a statement was sent, whether it was committed is not known
    └── BrokerUnavailable  Redis
"""

from __future__ import annotations

from typing import Any, NamedTuple


class JobflowError(Exception):
    """Base of all of them; ``str(error)`` is a sentence for a person."""


class SettingsError(JobflowError):
    pass


class SchemaTooNew(JobflowError):
    pass


class Fault(NamedTuple):
    """One thing that does not fit: ``pointer`` is a JSON Pointer (RFC 6901) into the body."""

    pointer: str
    detail: str


class Invalid(JobflowError):
    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(f"{f.pointer or 'body'}: {f.detail}" for f in faults))
        self.faults = faults


class Malformed(JobflowError):
    pass


class NotFound(JobflowError):
    pass


class Pruned(JobflowError):
    pass


class Conflict(JobflowError):
    """``extra`` goes into the answer, for example the current status."""

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.extra = extra


class UniqueConflict(Conflict):
    pass


class KeyInFlight(Conflict):
    pass


class KeyReused(JobflowError):
    pass


class RunLost(JobflowError):
    pass


class Unavailable(JobflowError):
    pass


class StoreUnavailable(Unavailable):
    pass


class AnswerLost(StoreUnavailable):
    """``backend`` is the process id of the server's side, which may still be at work."""

    def __init__(self, detail: str, backend: int) -> None:
        super().__init__(detail)
        self.backend = backend


class BrokerUnavailable(Unavailable):
    pass
