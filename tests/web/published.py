"""The published description as the judge of real answers."""

from __future__ import annotations

import copy
import re
from datetime import datetime
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker

JSON = ("application/json", "application/problem+json")
formats = FormatChecker(["uuid"])


@formats.checks("date-time", ValueError)
def is_moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


class Published:
    """``seen``: (operation, status, media type) of all answers that were judged."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._paths: dict[str, Any] = document["paths"]
        self._components = copy.deepcopy(document["components"])
        for schema in self._components["schemas"].values():
            schema.setdefault("additionalProperties", False)  # a member that is not described is a fault here
        self.seen: set[tuple[str, int, str]] = set()

    def promised(self) -> set[tuple[str, int, str]]:
        """(operation, status, media type) of everything but errors."""
        return {
            (operation["operationId"], int(status), media)
            for methods in self._paths.values()
            for operation in methods.values()
            for status, answer in operation["responses"].items()
            for media in answer.get("content", {"": None})
            if int(status) < 400
        }

    def faults(self, answer: httpx.Response) -> list[str]:
        """What an answer has that the description has not."""
        operation = self._operation(answer.request)
        if operation is None:
            return []
        name = f"{answer.request.method} {answer.request.url.path} → {answer.status_code}"
        described = operation["responses"].get(str(answer.status_code))
        if described is None:
            return [f"{name} is not described"]
        media = answer.headers.get("content-type", "").partition(";")[0]
        content = described.get("content", {})
        if media not in content and (answer.content or content):
            return [f"{name} is {media or 'nothing'}, described is {list(content)}"]
        self.seen.add((operation["operationId"], answer.status_code, media))
        if media not in JSON or answer.request.method == "HEAD":
            return []
        schema = content[media]["schema"] | {"components": self._components}
        found = Draft202012Validator(schema, format_checker=formats).iter_errors(answer.json())
        return [f"{name}: {error.json_path} {error.message[:200]}" for error in found]

    def _operation(self, request: httpx.Request) -> Any:
        """None for a path or method that is not described."""
        path = request.url.path
        if path not in self._paths:
            shapes = (shape for shape in self._paths if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", shape), path))
            path = next(shapes, "")
        return self._paths.get(path, {}).get(request.method.lower())
