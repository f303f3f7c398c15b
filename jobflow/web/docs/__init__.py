"""/docs: the API as a page, made of its own description. Each endpoint's words and examples stand here as data."""

from jobflow.web.docs.page import ROUTES

__all__ = ["ROUTES"]
