"""Files for browsers: pinned, kept for ever, and nothing else from the disk."""

from __future__ import annotations

import gzip
import hashlib
import re

import pytest

from jobflow.paths import resource
from jobflow.web.dashboard.static import assets, url_of
from tests.web.stubs import Stage

VENDOR = resource("static") / "vendor"


def test_vendored_files_are_those_that_were_looked_at() -> None:
    table = dict(
        re.findall(r"^\| `([\w.-]+)` \| `([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), re.MULTILINE)
    )
    assert table["htmx.min.js"] == "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130"
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.js")} == table


def test_our_own_files_stay_small() -> None:
    assert len(assets()["app.css"].body) < 30_000
    assert len(assets()["app.js"].body) < 12_000
    assert sum(len(asset.zipped) for asset in assets().values()) < 40_000


@pytest.mark.parametrize("name", sorted(assets()))
async def test_a_file_is_kept_for_ever_under_its_hash(name: str) -> None:
    stage = Stage()
    answer = await stage.request("GET", url_of(name), headers={"accept-encoding": "identity"})
    assert answer.status_code == 200
    assert answer.content == (resource("static") / name).read_bytes()
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"

    zipped = await stage.request("GET", url_of(name), headers={"accept-encoding": "gzip, br"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.headers["vary"] == "Accept-Encoding"
    assert zipped.content == gzip.decompress(assets()[name].zipped) == answer.content

    again = await stage.request("GET", url_of(name), headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304

    plain = await stage.request("GET", f"/static/{name}")
    assert plain.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/none.css",
        "/static/../pyproject.toml",
        "/static/%2e%2e/README.md",
        "/static/vendor/README.md",
    ],
)
async def test_nothing_else_is_to_be_had(path: str) -> None:
    assert (await Stage().request("GET", path)).status_code == 404
