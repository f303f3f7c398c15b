"""HTTP: the REST API, health and metrics."""

from jobflow.web.app import build_app
from jobflow.web.hub import Hub
from jobflow.web.parts import Parts

__all__ = ["Hub", "Parts", "build_app"]
