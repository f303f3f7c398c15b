"""The description of the API as every instance has it, without an instance."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Litestar

from jobflow.web.app import ROUTES, documented
from jobflow.web.call import Call
from jobflow.web.openapi import describe

RAW = describe(documented(Litestar(ROUTES, request_class=Call, openapi_config=None, logging_config=None)))
DOCUMENT: dict[str, Any] = msgspec.json.decode(RAW)
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
# operationId → (method, path, operation); HEAD goes with its GET.
OPERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if method != "head"
}
