"""The dashboard: pages made on the server, better with htmx, whole without it. Each module holds the pages of a subject."""

from jobflow.web.dashboard import create, dlq, job, jobs, login, overview, static

ROUTES = [
    *(*overview.ROUTES, *jobs.ROUTES, *job.ROUTES, *create.ROUTES, *dlq.ROUTES),
    *(*login.ROUTES, *static.ROUTES),
]

__all__ = ["ROUTES"]
