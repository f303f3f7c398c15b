"""From the OpenAPI description to what the page shows. Pure: the same document, the same reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from jobflow.registry import QUEUE_NAME, TYPE_NAME
from jobflow.web.body import BULK_BYTES, JOB_BYTES
from jobflow.web.docs.examples import EXAMPLES, Example
from jobflow.web.docs.words import ERRORS, MEANINGS, NOTES, PARAMETERS, SPECIAL_ERRORS, SUBJECTS, Subject
from jobflow.web.problems import EVERY_KIND

PATTERNS = {TYPE_NAME: "1 to 128 of A-Z a-z 0-9 . _ : -", QUEUE_NAME: "1 to 64 of a-z 0-9 _ -"}
SPANS = (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " of them"))
WORDS = {"string": "text", "date-time": "time", "uuid": "UUID", "uri": "URI"}
ALSO = Subject("more", "More", "", ())
Tree = Mapping[str, Any]


class Kind(NamedTuple):
    """What a value is, in words. ``model``: the schema to look at for more."""

    text: str
    bounds: str = ""
    model: str = ""


class Member(NamedTuple):
    """A parameter, or a member of an object."""

    name: str
    kind: Kind
    meaning: str
    required: bool = False
    default: str = ""
    place: str = ""  # of a parameter: path, query or header


class Answer(NamedTuple):
    status: int
    phrase: str
    media: str
    model: str


class Failure(NamedTuple):
    status: int
    phrase: str
    what_to_do: str
    types: tuple[str, ...] = ()  # of the problem


class Endpoint(NamedTuple):
    id: str
    methods: list[str]
    path: str
    summary: str
    notes: tuple[str, ...]
    open: bool
    parameters: list[Member]
    body: str  # name of its schema
    members: list[Member]
    answers: list[Answer]
    failures: list[Failure]  # those that not every request can get
    limits: list[str]
    example: Example | None


class Section(NamedTuple):
    subject: Subject
    endpoints: list[Endpoint]


class Model(NamedTuple):
    name: str
    members: list[Member]


class Reference(NamedTuple):
    sections: list[Section]
    models: list[Model]  # of the answers
    errors: list[Failure]  # all that there are


def read(document: bytes) -> Reference:
    """The whole page, subject by subject. Operations that no subject names come last."""
    tree = msgspec.json.decode(document)
    schemas: Tree = tree["components"]["schemas"]
    found = {endpoint.id: endpoint for endpoint in _endpoints(tree["paths"], schemas)}
    sections = [Section(subject, [found.pop(id) for id in subject.operations if id in found]) for subject in SUBJECTS]
    if found:
        sections.append(Section(ALSO, list(found.values())))
    bodies = {endpoint.body for section in sections for endpoint in section.endpoints}
    return Reference(
        sections=[section for section in sections if section.endpoints],
        models=[Model(name, members_of(name, schemas)) for name in schemas if name not in bodies],
        errors=[failure("", status)._replace(types=types_of(status)) for status in ERRORS],
    )


def _endpoints(paths: Tree, schemas: Tree) -> Iterator[Endpoint]:
    for path, methods in paths.items():
        for method, operation in methods.items():
            if method != "head":  # the same as its GET, without a body
                also = ["HEAD"] if method == "get" and "head" in methods else []
                yield _endpoint([method.upper(), *also], path, operation, schemas)


def _endpoint(methods: list[str], path: str, operation: Tree, schemas: Tree) -> Endpoint:
    id = operation["operationId"]
    answers = {int(status): answer for status, answer in operation["responses"].items()}
    body = _content(operation.get("requestBody", {}))[1]
    return Endpoint(
        id=id,
        methods=methods,
        path=path,
        summary=operation["summary"],
        notes=NOTES.get(id, ()),
        open=operation.get("security") == [],
        parameters=[_parameter(parameter) for parameter in operation["parameters"]],
        body=body,
        members=members_of(body, schemas) if body else [],
        answers=[_answer(status, answer) for status, answer in sorted(answers.items()) if status < 400],
        failures=[failure(id, status) for status in sorted(answers) if _particular(id, status)],
        limits=_limits(id, methods[0]),
        example=EXAMPLES.get(id),
    )


def _particular(id: str, status: int) -> bool:
    """Whether an error belongs to this operation rather than to all of them."""
    return (id, status) in SPECIAL_ERRORS or (status >= 400 and status not in (400, 401, 403, 408, 421, 429, 500))


def failure(id: str, status: int) -> Failure:
    what_to_do = SPECIAL_ERRORS.get((id, status)) or ERRORS.get(status, "")
    return Failure(status, HTTPStatus(status).phrase, what_to_do)


def types_of(status: int) -> tuple[str, ...]:
    """The ``type`` of every problem with this status."""
    return tuple(sorted(kind.type for kind in EVERY_KIND if kind.status == status))


def _answer(status: int, answer: Tree) -> Answer:
    media, model = _content(answer)
    return Answer(status, answer["description"], media, model)


def _content(holder: Tree) -> tuple[str, str]:
    """(media types, name of the first one's schema), empty where there is none."""
    content = holder.get("content", {})
    names = [kind["schema"].get("$ref", "").rpartition("/")[2] for kind in content.values()]
    return " or ".join(content), next(iter(names), "")


def _limits(id: str, method: str) -> list[str]:
    limits = []
    if id == "submitJobs":
        limits.append(f"Body at most {BULK_BYTES // 1024**2} MiB and 10,000 jobs.")
    elif method != "GET":
        limits.append(f"Body at most {JOB_BYTES // 1024} KiB.")
    if method == "POST":
        limits.append("Counts as one POST for the rate limit, whatever it carries.")
    return limits


def _parameter(parameter: Tree) -> Member:
    schema = parameter["schema"]
    return Member(
        name=parameter["name"],
        kind=kind_of(schema),
        meaning=parameter["description"] or PARAMETERS.get(parameter["name"], ""),
        required=parameter.get("required", False),
        default=json.dumps(schema["default"]) if schema.get("default") is not None else "",
        place=parameter["in"],
    )


def members_of(name: str, schemas: Tree) -> list[Member]:
    schema, meanings = schemas[name], MEANINGS.get(name, {})
    return [
        Member(
            name=member,
            kind=kind_of(value),
            meaning=meanings.get(member, ""),
            required=member in schema.get("required", ()),
            default=json.dumps(value["default"]) if value.get("default") is not None else "",
        )
        for member, value in schema["properties"].items()
    ]


def kind_of(schema: Tree) -> Kind:
    """A schema in words: ``integer or null``, ``0 to 9``."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Kind(name, model=name)
    if "anyOf" in schema:
        kinds = [kind_of(part) for part in schema["anyOf"]]
        bounds, models = [kind.bounds for kind in kinds if kind.bounds], [kind.model for kind in kinds if kind.model]
        return Kind(" or ".join(kind.text for kind in kinds), " · ".join(bounds), "".join(models[:1]))
    if "enum" in schema:
        return Kind("text", ", ".join(str(value) for value in schema["enum"]))
    if schema.get("type") == "array":
        item = kind_of(schema["items"])
        each = f"each {item.bounds}" if item.bounds else ""
        return Kind(f"list of {item.text}", ", ".join(filter(None, [_bounds(schema), each])), item.model)
    word: str = schema.get("format") or schema.get("type", "any")
    return Kind(WORDS.get(word, word), _bounds(schema))


def _bounds(schema: Tree) -> str:
    if "pattern" in schema:
        pattern: str = schema["pattern"]
        return PATTERNS.get(pattern, pattern)
    for low, high, unit in SPANS:
        if high in schema:
            start = f"{schema[low]:,} to" if low in schema else "up to"
            return f"{start} {schema[high]:,}{unit}"
    return ""
