"""The door, in front of known and unknown paths alike."""

from __future__ import annotations

import pytest

from jobflow.settings import Settings
from tests.web.stubs import Stage

TOKEN = "a-token-of-visible-characters"
ID = "0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8000", "[::1]", "jobs.lan"]
)
async def test_our_names_are_let_in(host: str) -> None:
    answer = await Stage(Settings(hosts="jobs.lan")).request("GET", "/types", headers={"host": host})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil@localhost", "localhost:80:80", "localhost:x", "", "::1"]
)
async def test_other_names_are_not(host: str) -> None:
    stage = Stage()
    for path in ("/types", "/no/such/path", "/openapi.json"):
        answer = await stage.request("GET", path, headers={"host": host})
        assert answer.status_code == 421
        assert answer.headers["content-type"] == "application/problem+json"


async def test_any_name_when_the_setting_says_so() -> None:
    answer = await Stage(Settings(hosts="*")).request("GET", "/types", headers={"host": "evil.example"})

    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_need_neither_name_nor_token(path: str) -> None:
    answer = await Stage(Settings(admin_token=TOKEN)).request("GET", path, headers={"host": "10.1.2.3"})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Bearer x {TOKEN}"],
)
async def test_without_the_token_every_route_is_closed(given: str) -> None:
    stage = Stage(Settings(admin_token=TOKEN))
    routes = [(str(method), route.path) for route in stage.app.routes for method in getattr(route, "methods", ())]
    assert len(routes) > 15
    for method, path in [*routes, ("GET", "/no/such/path"), ("GET", "/livez/"), ("GET", "//livez")]:
        if path in ("/livez", "/readyz") or path.startswith(("/login", "/static/")):
            continue
        answer = await stage.request(method, path, headers={"authorization": given})
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert stage.taken == []


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"bearer  {TOKEN}"])
async def test_with_the_token_it_is_open(given: str) -> None:
    answer = await Stage(Settings(admin_token=TOKEN)).request("GET", "/types", headers={"authorization": given})

    assert answer.status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_pages_of_other_sites_change_nothing(site: str) -> None:
    stage = Stage()
    for method, path in (("POST", f"/jobs/{ID}/retry"), ("DELETE", f"/jobs/{ID}")):
        answer = await stage.request(method, path, headers={"sec-fetch-site": site})
        assert answer.status_code == 403
    assert (await stage.request("GET", "/types", headers={"sec-fetch-site": site})).status_code == 200


@pytest.mark.parametrize(
    "name", ["host", "authorization", "content-type", "content-length", "idempotency-key", "x-request-id"]
)
async def test_headers_that_mean_one_thing_come_once(name: str) -> None:
    pairs = [("host", "localhost"), ("content-type", "application/json"), (name, "1"), (name, "1")]
    answer = await Stage().request("GET", "/types", headers=pairs)

    assert answer.status_code == 400
    assert name in answer.json()["detail"]


async def test_lists_may_come_in_parts() -> None:
    pairs = [("host", "localhost"), ("accept", "text/html"), ("accept", "application/json")]
    answer = await Stage().request("GET", "/types", headers=pairs)

    assert answer.status_code == 200


async def test_a_sane_request_id_is_kept_and_others_are_replaced() -> None:
    stage = Stage()
    kept = await stage.request("GET", "/nothing", headers={"x-request-id": "req-1:a.b_c"})
    assert kept.headers["x-request-id"] == kept.json()["request_id"] == "req-1:a.b_c"

    made = [
        await stage.request("GET", "/types", headers={"x-request-id": bad}) for bad in ("a b", "x" * 129, b"\xe9", "")
    ]
    ids = [answer.headers["x-request-id"] for answer in made]
    assert len(set(ids)) == len(ids)
    assert all(id.isascii() and " " not in id and len(id) < 40 for id in ids)


async def test_only_posts_are_counted_and_the_answer_says_what_is_left() -> None:
    stage = Stage(Settings(rate_limit_max=7, rate_limit_window=60))
    for method, path in (
        ("GET", "/types"),
        ("DELETE", "/jobs/x"),
        ("POST", "/jobs/x/retry"),
        ("POST", "/no/such/path"),
    ):
        answer = await stage.request(method, path)
        assert ("ratelimit" in answer.headers) == (method == "POST")
    assert answer.headers["ratelimit-policy"] == '"default";q=7;w=60'
    assert answer.headers["ratelimit"] == '"default";r=6;t=60'
    assert [client for client, _ in stage.taken] == ["127.0.0.1"] * 2


async def test_forwarded_addresses_count_only_from_trusted_proxies() -> None:
    headers = [("host", "localhost"), ("x-forwarded-for", "6.6.6.6, 9.9.9.9"), ("x-forwarded-for", "10.0.0.2")]
    stage = Stage(Settings(trusted_proxies="10.0.0.0/8"))
    await stage.request("POST", "/x", headers=headers, peer=("10.0.0.1", 1))
    await stage.request("POST", "/x", headers=headers, peer=("8.8.8.8", 1))

    assert [client for client, _ in stage.taken] == ["9.9.9.9", "8.8.8.8"]


async def test_a_refused_post_is_told_when_to_come_back_before_its_body_is_read() -> None:
    stage = Stage(Settings(rate_limit_max=7), grant=0)
    answer = await stage.request("POST", "/jobs", content=b"x" * 1_000_000)

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"
    assert answer.headers["ratelimit"] == '"default";r=0;t=60'
    body = answer.json()
    assert body["type"].endswith("#quota-exceeded")
    assert body["violated-policies"] == ["default"]
    assert "RATE_LIMIT_MAX" in body["detail"]
