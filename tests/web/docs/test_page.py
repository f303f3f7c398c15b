"""/docs in a browser: everything is there, every link leads somewhere, and the numbers are this instance's."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape

import httpx
import msgspec
import pytest

from jobflow.app import create_app
from jobflow.settings import Settings
from jobflow.web.dashboard.page import POLICY
from jobflow.web.docs.page import coded
from tests.web.docs.document import OPERATIONS

TOKEN = "a-token-of-visible-characters"
BROWSER = {"accept": "text/html"}


async def page(http: httpx.AsyncClient, **headers: str) -> str:
    answer = await http.get("/docs", headers=BROWSER | headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == POLICY
    return answer.text


def commands(text: str) -> list[str]:
    return [unescape(code) for code in re.findall(r"<code>(curl .*?)</code>", text, re.DOTALL)]


@pytest.fixture
async def strict(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an instance with a token and a rate limit."""
    changes = {"admin_token": TOKEN, "rate_limit_max": 12_345, "rate_limit_window": 7.0}
    app = create_app(msgspec.structs.replace(settings, **changes))
    transport = httpx.ASGITransport(app)
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        yield client


async def test_every_operation_has_its_place_and_every_link_leads_somewhere(http: httpx.AsyncClient) -> None:
    text = await page(http)
    ids = re.findall(r'\bid="([^"]+)"', text)

    assert set(OPERATIONS) <= set(ids)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    assert 'href="/openapi.json"' in text
    assert len(commands(text)) == len(OPERATIONS)


async def test_examples_name_this_server_as_the_client_sees_it(http: httpx.AsyncClient) -> None:
    assert commands(await page(http))[0].startswith("curl -X POST http://localhost/jobs ")
    behind_a_proxy = await page(http, **{"x-forwarded-proto": "https", "host": "127.0.0.1:8001"})
    assert commands(behind_a_proxy)[0].startswith("curl -X POST https://127.0.0.1:8001/jobs ")
    assert "javascript" not in await page(http, **{"x-forwarded-proto": "javascript"})


async def test_it_is_as_closed_as_the_rest_and_knows_this_instance(strict: httpx.AsyncClient) -> None:
    assert (await strict.get("/docs")).status_code == 401
    text = await page(strict, authorization=f"Bearer {TOKEN}")

    assert "12,345 POSTs in 7 s" in text
    assert TOKEN not in text
    open_to_all = [command for command in commands(text) if "Authorization: Bearer $JOBFLOW_ADMIN_TOKEN" not in command]
    assert [command.rpartition("/")[2].rstrip('"') for command in open_to_all] == ["livez", "readyz?verbose"]


async def test_it_asks_for_no_token_where_there_is_none_and_takes_no_parameters(http: httpx.AsyncClient) -> None:
    assert "Authorization" not in "".join(commands(await page(http)))
    assert (await http.get("/docs?x=1")).status_code == 422


async def test_there_is_no_script_and_no_style_in_it(http: httpx.AsyncClient) -> None:
    assert not re.search(r"<script(?![^>]* src=\"/static/)|\sstyle=|\son\w+=|javascript:", await page(http))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a `b` c", "a <code>b</code> c"),
        ("``b``", "<code>b</code>"),
        ("<b> `<i>`", "&lt;b&gt; <code>&lt;i&gt;</code>"),
    ],
)
def test_words_with_code(text: str, shown: str) -> None:
    assert coded(text) == shown
