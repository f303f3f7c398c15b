"""With an admin token: log in, work, log out."""

from __future__ import annotations

import httpx
import pytest

from jobflow.web import limits
from jobflow.web.dashboard.page import LOGINS
from tests.support.pages import BROWSER, visit
from tests.support.waiting import final
from tests.web.dashboard.conftest import TOKEN


async def test_without_a_cookie_every_page_leads_to_the_login(locked: httpx.AsyncClient) -> None:
    for path in ("/", "/dashboard", "/dashboard/jobs", "/dashboard/nothing"):
        answer = await locked.get(path, headers=BROWSER)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")
        part = await locked.get(path, headers=BROWSER | {"hx-request": "true"})
        assert part.headers["hx-redirect"] == f"/login?next={path}"
    assert (await locked.get("/dashboard")).status_code == 401  # no browser
    assert (await locked.post("/jobs", headers=BROWSER)).status_code == 401  # nothing to come back to
    page = await visit(locked, "/login")
    assert "Log in" in page.text
    assert "/dashboard/jobs" not in page.links
    assert (await locked.get("/static/app.css")).status_code == 200


async def test_a_person_logs_in_works_and_logs_out(locked: httpx.AsyncClient) -> None:
    page = await (await visit(locked, "/dashboard/create?type=echo")).submit("/login", token=f" {TOKEN} ")
    assert page.path == "/dashboard/create?type=echo"
    cookie = next(iter(locked.cookies.jar))
    assert cookie.has_nonstandard_attr("HttpOnly")

    job = await (await visit(locked, "/dashboard/create?type=echo")).submit("/dashboard/create", payload="{}")
    assert job.status == 200
    id = job.path.rpartition("/")[2]
    await final(locked, id)  # the API's reads are open to the cookie
    assert "completed" in (await visit(locked, job.path)).text

    assert (await locked.post("/jobs", json={"type": "echo"})).status_code == 401  # its POSTs are not
    assert (
        await locked.post("/jobs", json={"type": "echo"}, headers={"authorization": f"Bearer {TOKEN}"})
    ).status_code == 201

    out = await job.submit("/logout")
    assert out.path == "/login"
    assert (await locked.get("/dashboard", headers=BROWSER)).status_code == 303


async def test_a_browser_at_the_api_logs_in_and_comes_back(locked: httpx.AsyncClient) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    id = (await locked.post("/jobs", json={"type": "echo"}, headers=bearer)).json()["id"]
    for accept in ("application/json", "*/*"):
        assert (await locked.get(f"/jobs/{id}", headers={"accept": accept})).status_code == 401

    page = await visit(locked, f"/jobs/{id}")
    assert page.path == f"/login?next=/jobs/{id}"
    assert (await page.submit("/login", token=TOKEN)).path == f"/dashboard/jobs/{id}"


async def test_the_way_back_keeps_the_filter(locked: httpx.AsyncClient) -> None:
    wanted = "/dashboard/jobs?status=failed&payload.user=a%26b"
    assert (await (await visit(locked, wanted)).submit("/login", token=TOKEN)).path == wanted


async def test_guessing_is_slowed_down(locked: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PATIENCE", 60.0)  # a busy machine must not count in two places
    page = await visit(locked, "/login?next=/dashboard/dlq")
    for _ in range(LOGINS):
        page = await page.submit("/login", token="not the token")
        assert page.status == 403
    limited = await page.submit("/login", token=TOKEN)  # even the right one: who guesses learns nothing
    assert limited.status == 429
    assert "Too many tries. Wait" in limited.text
    assert 1 <= int(limited.answer.headers["retry-after"]) <= 61
    assert (await locked.get("/dashboard", headers=BROWSER)).status_code == 303
    with_token = {"authorization": f"Bearer {TOKEN}"}
    assert (await locked.post("/jobs", json={"type": "echo"}, headers=with_token)).status_code == 201  # counted apart


async def test_a_wrong_token_is_refused(locked: httpx.AsyncClient) -> None:
    page = await visit(locked, "/login?next=/dashboard/dlq")
    wrong = await page.submit("/login", token="something else é")
    assert wrong.status == 403
    assert "That is not the token." in wrong.text
    assert (await locked.get("/dashboard", headers=BROWSER)).status_code == 303
    assert (await wrong.submit("/login", token=TOKEN)).path == "/dashboard/dlq"


async def test_the_login_leads_nowhere_else(locked: httpx.AsyncClient) -> None:
    for target in ("//evil.example", "https://evil.example", "/\\evil.example"):
        page = await visit(locked, f"/login?next={target}")
        assert (await page.submit("/login", token=TOKEN)).path == "/dashboard"
        locked.cookies.clear()


async def test_whoever_is_logged_in_or_needs_no_login_goes_on(
    locked: httpx.AsyncClient, http: httpx.AsyncClient
) -> None:
    assert (await http.get("/login", headers=BROWSER)).headers["location"] == "/dashboard"
    await (await visit(locked, "/login")).submit("/login", token=TOKEN)
    assert (await locked.get("/login?next=/dashboard/dlq", headers=BROWSER)).headers["location"] == "/dashboard/dlq"
    page = await visit(locked, "/dashboard")
    assert "Log out" in page.text


async def test_an_old_cookie_is_not_enough(locked: httpx.AsyncClient) -> None:
    await visit(locked, "/login")
    name, value = next(iter(locked.cookies.items()))
    locked.cookies.clear()
    forged = value.replace("v.", "s.", 1)
    answer = await locked.get("/dashboard", headers=BROWSER | {"cookie": f"{name}={forged}"})
    assert answer.status_code == 303


async def test_nor_does_a_form_that_somebody_filled_in(locked: httpx.AsyncClient) -> None:
    page = await visit(locked, "/login")
    assert (await page.submit("/login", token=TOKEN, next="//evil.example/elsewhere")).path == "/dashboard"
