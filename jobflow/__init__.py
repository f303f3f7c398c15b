"""Jobflow: background jobs over REST. These are the names a handler needs."""

from importlib.metadata import PackageNotFoundError, version

from jobflow.context import Cancel, Context, Discard, Snooze
from jobflow.registry import job, lifespan

try:
    __version__ = version("jobflow-server")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.1.0"

__all__ = ["Cancel", "Context", "Discard", "Snooze", "__version__", "job", "lifespan"]
