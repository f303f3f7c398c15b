"""What all pages have in common: headers, fragments, escaping, and errors that say what to do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
from litestar import Litestar
from litestar.routes import HTTPRoute
from uuid_utils.compat import uuid7

from jobflow.errors import StoreUnavailable
from jobflow.pool import Connection
from jobflow.web.call import Visit
from tests.support.pages import BROWSER, visit
from tests.support.rows import add_job, ago
from tests.web.dashboard.conftest import EVIL
from tests.web.stubs import Stage

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)
PART = {"hx-request": "true", "hx-request-type": "partial"}


def pages(app: Litestar, id: UUID) -> Iterator[str]:
    """The path of every page there is."""
    yield "/"
    for route in app.routes:
        if isinstance(route, HTTPRoute) and route.path.startswith(("/dashboard", "/login")) and "GET" in route.methods:
            yield route.path_format.replace("{job_id}", str(id)).replace("{part}", "payload")


def check_headers(answer: httpx.Response) -> None:
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.headers["content-type"].startswith("text/html"):
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert {"HX-Request", "HX-Request-Type", "Accept", "Cookie"} <= set(answer.headers["vary"].split(", "))


async def test_every_page_is_whole_and_guarded(app: Litestar, http: httpx.AsyncClient, database: Connection) -> None:
    id = await add_job(database, "dead_letter")
    paths = list(pages(app, id))
    assert len(paths) >= 10
    for path in paths:
        page = await visit(http, path)
        assert page.status == 200, path
        check_headers(page.answer)
        assert len(page.answer.content) < 60_000
        if not path.endswith("/payload"):
            assert page.tags.count("h1") == 1, path
            assert page.tags.count("main") == 1
            assert "<title>" in page.answer.text


async def test_no_page_needs_what_the_policy_forbids(app: Litestar, http: httpx.AsyncClient, evil: list[UUID]) -> None:
    for path in [*pages(app, evil[0]), "/dashboard/nothing", "/dashboard/jobs?limit=x"]:
        if path.endswith("/payload"):
            continue  # plain JSON
        page = await visit(http, path)
        text = page.answer.text
        assert "style" not in page.attributes, path
        assert not [name for name in page.attributes if name.startswith(("on", "hx-on"))], path
        assert "<style" not in text
        assert "js:" not in text.replace("app.js", "")
        assert all(re.search(r'src="/static/', tag) for tag in re.findall(r"<script[^>]*>", text)), path


async def test_nothing_that_people_write_becomes_markup(
    app: Litestar, http: httpx.AsyncClient, evil: list[UUID]
) -> None:
    seen = 0
    paths = [path for id in evil for path in pages(app, id)]
    paths += ["/dashboard/create?type=%3Cscript%3Eboom()&payload=%3Cscript%3Eboom()&tags=%22%3E%3Cb%3E"]
    paths += ["/dashboard/jobs?error=%3Cscript%3Eboom()%3C/script%3E", "/dashboard/jobs?limit=%3Cscript%3Eboom()"]
    paths += [
        "/dashboard/jobs?payload.%3Cscript%3E=%3Cscript%3E",
        "/login?next=%22%3E%3Cscript%3E",
        "/dashboard/%3Cscript%3E",
    ]
    for path in paths:
        for headers in ({}, PART):
            page = await visit(http, path, **headers)
            if not page.answer.headers["content-type"].startswith("text/html"):
                continue
            seen += page.text.count("boom()")
            assert "<script>" not in page.answer.text, path
            assert "<img" not in page.answer.text
            assert "<b hx" not in page.answer.text
            assert "54444444439" not in page.answer.text  # nor is a template made of it
            assert "/evil" not in [link for link in page.links if "?" not in link]
    assert seen > 20, "the evil texts were not shown at all"
    assert EVIL.startswith("<script>")


async def test_htmx_gets_the_fragment_alone_and_304_when_nothing_changed(
    http: httpx.AsyncClient, database: Connection
) -> None:
    await add_job(database, "dead_letter", created_at=ago(100_000))  # its age changes once a day
    await http.get("/dashboard/dlq", headers=BROWSER)  # for the cookie: the form token depends on it
    for path in ("/dashboard/dlq", "/dashboard/queues"):
        part = await http.get(path, headers=BROWSER | PART)
        assert part.status_code == 200
        assert "<html" not in part.text
        assert part.headers["hx-ptag"]
        check_headers(part)

        again = await http.get(path, headers=BROWSER | PART | {"hx-ptag": part.headers["hx-ptag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = await http.get(path, headers=BROWSER | PART | {"hx-ptag": "older"})
        assert other.status_code == 200


async def test_tabs_of_several_people_share_a_fragment_but_never_a_form_token(
    app: Litestar, http: httpx.AsyncClient, database: Connection
) -> None:
    id = await add_job(database, "dead_letter", created_at=ago(100_000))  # its age changes once a day
    store, reads = app.parts.store, []  # type: ignore[attr-defined]
    list_jobs = store.list_jobs

    async def counted(*args: Any, **options: Any) -> Any:
        reads.append(1)
        return await list_jobs(*args, **options)

    store.list_jobs = counted
    cookies = []
    for _ in range(3):
        http.cookies.clear()
        page = await http.get("/dashboard/dlq", headers=BROWSER)
        cookies.append(page.headers["set-cookie"].partition(";")[0])
    http.cookies.clear()
    reads.clear()

    async def part(cookie: str, **more: str) -> httpx.Response:
        return await http.get("/dashboard/dlq", headers=BROWSER | PART | more | {"cookie": cookie})

    answers = await asyncio.gather(*(part(cookie) for cookie in cookies for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(reads) <= 10  # of 30: a round of hints may have come between, and none counts for more than a second
    tokens = [re.findall(r'name="csrf" value="(\w+)"', answer.text) for answer in answers]
    pages = app.state.pages
    for n, cookie in enumerate(cookies):
        session = pages.sessions.find(
            Visit(app.parts, {"method": "GET", "path": "/"}, {b"cookie": cookie.encode()}, "x")
        )  # type: ignore[attr-defined]
        for answer, found in zip(answers[n * 10 : n * 10 + 10], tokens[n * 10 : n * 10 + 10], strict=True):
            assert str(id) in answer.text
            assert set(found) == {pages.sessions.form_token(session)}
            assert pages.stand_in not in answer.text
            assert "set-cookie" not in answer.headers

    # Nor does one's tag stand for the other's fragment.
    tag = answers[0].headers["hx-ptag"]
    assert (await part(cookies[0], **{"hx-ptag": tag})).status_code == 304
    assert (await part(cookies[1], **{"hx-ptag": tag})).status_code == 200

    stranger = await part("none=1")
    assert stranger.headers["set-cookie"]  # and a session that nobody else gets


async def test_who_has_just_done_something_sees_it_and_so_do_all_others(
    app: Litestar, http: httpx.AsyncClient, database: Connection
) -> None:
    id = await add_job(database, "dead_letter")
    page = await http.get("/dashboard/dlq", headers=BROWSER)
    assert str(id) in (await http.get("/dashboard/dlq", headers=BROWSER | PART)).text
    await database.execute("DELETE FROM jobs")
    cookie = page.headers["set-cookie"].partition(";")[0]
    mine = await http.get("/dashboard/dlq", headers=BROWSER | PART | {"cookie": f"{cookie}; jobflow_said=Deleted."})
    assert (str(id) in mine.text, "Deleted." in mine.text) == (False, True)
    other = await http.get("/dashboard/dlq", headers=BROWSER | PART)
    assert (str(id) in other.text, "Deleted." in other.text) == (False, False)


async def test_everybody_else_gets_the_page(http: httpx.AsyncClient) -> None:
    whole = {"hx-request": "true", "hx-request-type": "full"}
    for headers in ({}, whole, PART | {"hx-history-restore-request": "true"}):
        assert "<html" in (await http.get("/dashboard", headers=BROWSER | headers)).text


async def test_errors_are_pages_for_people_and_notices_for_htmx(http: httpx.AsyncClient) -> None:
    for path, status in (
        ("/dashboard/nothing", 404), (f"/dashboard/jobs/{uuid7()}", 404), ("/dashboard/jobs/x", 404),
        ("/dashboard/jobs?limit=9999", 422), ("/dashboard/jobs?cursor=x", 400), ("/dashboard/jobs?nonsense=1", 422),
        ("/dashboard/jobs?queue=%00", 422), ("/dashboard/dlq?status=x", 422), ("/dashboard/jobs?type=%ff", 400),
    ):  # fmt: skip
        page = await visit(http, path)
        assert page.status == status, path
        assert "h1" in page.tags
        assert page.answer.headers["x-request-id"] in page.text
        check_headers(page.answer)

        part = await visit(http, path, **PART)
        assert part.status == status
        assert part.answer.headers["hx-retarget"] == "#notice"
        assert "<html" not in part.answer.text

        machine = await http.get(path, headers={"accept": "*/*"})
        assert machine.headers["content-type"] == "application/problem+json"


async def test_a_wrong_method_and_a_foreign_host_are_pages_too() -> None:
    stage = Stage()
    wrong = await stage.request("DELETE", "/dashboard/jobs", headers=BROWSER)
    assert wrong.status_code == 405
    assert wrong.headers["allow"]
    foreign = await stage.request("GET", "/dashboard", headers=BROWSER | {"host": "evil.example"})
    assert foreign.status_code == 421
    for answer in (wrong, foreign):
        check_headers(answer)


async def test_while_postgres_is_away_pages_say_so() -> None:
    away = StoreUnavailable("Postgres is away.")
    stage = Stage(store_overview=away, store_totals=away, store_get_job=away, store_list_jobs=away)
    for path in ("/dashboard", "/dashboard/jobs", "/dashboard/queues", f"/dashboard/jobs/{uuid4()}"):
        answer = await stage.request("GET", path, headers=BROWSER)
        assert answer.status_code == 503
        assert "Postgres is away." in answer.text
        assert answer.headers["retry-after"]
        part = await stage.request("GET", path, headers=BROWSER | PART)
        assert (part.status_code, part.headers.get("hx-ptag")) == (
            503,
            None,
        )  # never 304: a refresh that failed is told
        assert "data-reload" in answer.text
        check_headers(answer)
    assert stage.emitted == []


async def test_a_bug_is_told_without_its_secrets() -> None:
    stage = Stage(store_overview=ZeroDivisionError("a secret"))
    answer = await stage.request("GET", "/dashboard", headers=BROWSER)
    assert answer.status_code == 500
    assert "a secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.text
    assert len(stage.emitted) == 1
