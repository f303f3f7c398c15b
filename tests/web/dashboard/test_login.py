"""With an admin token: log in, work, log out."""

from __future__ import annotations

import httpx

from tests.support.pages import BROWSER, visit
from tests.support.waiting import final
from tests.web.dashboard.conftest import TOKEN


async def test_without_a_cookie_every_page_leads_to_the_login(locked: httpx.AsyncClient) -> None:
    for path in ("/", "/dashboard", "/dashboard/jobs", "/dashboard/nothing"):
        answer = await locked.get(path, headers=BROWSER)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")
        part = await locked.get(path, headers=BROWSER | {"hx-request": "true"})
        assert part.headers["hx-redirect"] == f"/login?next={path}"
    assert (await locked.get("/jobs", headers=BROWSER)).status_code == 401
    assert (await locked.get("/dashboard")).status_code == 401  # no browser
    page = await visit(locked, "/login")
    assert "Log in" in page.text
    assert "/dashboard/jobs" not in page.links
    assert (await locked.get("/static/app.css")).status_code == 200


async def test_a_person_logs_in_works_and_logs_out(locked: httpx.AsyncClient) -> None:
    page = await (await visit(locked, "/dashboard/create?type=echo")).submit("/login", token=f" {TOKEN} ")
    assert page.path == "/dashboard/create"
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
