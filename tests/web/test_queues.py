"""/queues, /workers and /types over HTTP."""

from __future__ import annotations

import httpx


async def test_queues_are_listed_with_their_depth(http: httpx.AsyncClient) -> None:
    assert (await http.get("/queues")).json()["items"] == []
    await http.post("/jobs/bulk", json={"jobs": [{"type": "noop", "delay": 3600, "queue": "media"}] * 2})

    (queue,) = (await http.get("/queues")).json()["items"]
    assert queue["name"] == "media"
    assert queue["by_status"]["scheduled"] == 2
    assert queue["ready"] == 0
    assert queue["paused"] is False
    assert (await http.get("/queues/media")).json()["by_status"] == queue["by_status"]


async def test_an_unknown_queue_is_404(http: httpx.AsyncClient) -> None:
    for name in ("nobody", "Upper", "a%00", "x" * 65, "a%20b"):
        assert (await http.get(f"/queues/{name}")).status_code == 404


async def test_this_process_is_among_the_workers(http: httpx.AsyncClient) -> None:
    (worker,) = (await http.get("/workers")).json()["items"]

    assert (worker["state"], worker["late"], worker["concurrency"]) == ("alive", False, 10)
    assert "noop" in worker["types"]


async def test_types_tell_their_defaults_and_what_they_take(http: httpx.AsyncClient) -> None:
    types = {kind["name"]: kind for kind in (await http.get("/types")).json()["items"]}

    assert list(types) == sorted(types)
    adder = types["sum"]
    assert (adder["queue"], adder["priority"], adder["timeout"], adder["max_attempts"]) == ("sums", 2, 30.0, 3)
    assert "minimum" in str(adder["payload_schema"])
    assert types["noop"]["payload_schema"] == {"type": "object"}
