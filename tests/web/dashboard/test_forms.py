"""Only forms of our own pages are read."""

from __future__ import annotations

import httpx
import pytest

from jobflow.web.dashboard.forms import FORM_BYTES, Form
from tests.support.pages import BROWSER, visit
from tests.web.stubs import Stage

FORM = {"content-type": "application/x-www-form-urlencoded"}
PATHS = ("/dashboard/create", "/dashboard/jobs", "/dashboard/dlq/retry", "/login", "/logout")


async def send(stage: Stage, path: str, body: bytes | str, **headers: str) -> httpx.Response:
    given = BROWSER | FORM | {name.replace("_", "-"): value for name, value in headers.items()}
    return await stage.request("POST", path, content=body, headers=given)


async def token_of(stage: Stage) -> tuple[str, str]:
    """(cookie, token) of a fresh visitor."""
    page = await stage.request("GET", "/dashboard/create", headers=BROWSER)
    cookie = page.headers["set-cookie"].partition(";")[0]
    return cookie, page.text.partition('name="csrf" value="')[2].partition('"')[0]


@pytest.mark.parametrize("path", PATHS)
async def test_without_the_token_nothing_is_done(path: str) -> None:
    stage = Stage()  # whose client fails the test when it is called
    cookie, token = await token_of(stage)
    other_cookie, other_token = await token_of(stage)
    assert token != other_token
    for answer in (
        await send(stage, path, ""),
        await send(stage, path, "csrf=", cookie=cookie),
        await send(stage, path, f"csrf={token}"),
        await send(stage, path, f"csrf={token}", cookie=other_cookie),
        await send(stage, path, f"csrf={token}", cookie=cookie[:-1]),
        await send(stage, path, "csrf=%C3%A9", cookie=cookie),
    ):
        assert answer.status_code == 403
        assert "too old" in answer.text


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "", "origin": "x"}],
)
async def test_nor_for_a_page_of_another_site(headers: dict[str, str]) -> None:
    stage = Stage()
    cookie, token = await token_of(stage)
    for path in PATHS:
        given = BROWSER | FORM | headers | {"cookie": cookie}
        assert (await stage.request("POST", path, content=f"csrf={token}", headers=given)).status_code == 403


async def test_browsers_that_do_not_say_where_a_form_comes_from_name_its_origin() -> None:
    stage = Stage()
    cookie, token = await token_of(stage)
    headers = {"accept": "text/html", "cookie": cookie, **FORM}
    for origin, status in (("http://evil.example", 403), ("http://localhost:8000", 303), ("null", 403), (None, 303)):
        given = headers if origin is None else headers | {"origin": origin}
        answer = await stage.request("POST", "/logout", content=f"csrf={token}", headers=given)
        assert answer.status_code == status, origin


async def test_other_bodies_and_large_ones_are_refused() -> None:
    stage = Stage()
    cookie, token = await token_of(stage)
    assert (await send(stage, "/logout", "{}", cookie=cookie, content_type="application/json")).status_code == 415
    assert (
        await send(stage, "/logout", "a", cookie=cookie, content_type="multipart/form-data; boundary=a")
    ).status_code == 415
    assert (await send(stage, "/logout", b"a=" + b"x" * FORM_BYTES, cookie=cookie)).status_code == 413
    for bad in (b"a=%ff", b"\xff", "&".join(["a=1"] * 1_001)):
        assert (await send(stage, "/logout", bad, cookie=cookie)).status_code == 400
    assert (await send(stage, "/logout", f"csrf={token}", cookie=cookie)).status_code == 303


async def test_forms_do_not_count_for_the_rate_limit() -> None:
    stage = Stage(grant=0)
    cookie, token = await token_of(stage)
    assert (await send(stage, "/logout", f"csrf={token}", cookie=cookie)).status_code == 303
    assert stage.taken == []
    assert (await stage.request("POST", "/jobs", json={})).status_code == 429


def test_fields_by_name() -> None:
    form = Form([("id", "1"), ("id", "2"), ("empty", "")])
    assert form.text("id") == "2"
    assert form.all("id") == ["1", "2"]
    assert form.text("empty") == form.text("missing") == ""
    assert "empty" in form
    assert "missing" not in form


async def test_a_real_page_sends_a_form_that_is_taken(http: httpx.AsyncClient) -> None:
    page = await visit(http, "/dashboard/create")
    assert (await page.submit("/dashboard/create", type="noop")).status == 200
