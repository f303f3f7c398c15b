"""Requests and answers at the level of ASGI."""

from __future__ import annotations

from typing import Any

import pytest

from jobflow.errors import Malformed
from jobflow.web.call import Answer, json_answer, read_chunks


async def sent_by(answer: Answer) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await answer(None, None, send)  # type: ignore[arg-type]
    return sent


def receiving(*messages: dict[str, Any]) -> Any:
    queue = list(messages)

    async def receive() -> dict[str, Any]:
        return queue.pop(0)

    return receive


def piece(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_an_answer_knows_its_length() -> None:
    start, body = await sent_by(json_answer({"a": "é"}, 201, (b"location", b"/x")))

    assert start["status"] == 201
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(body["body"])
    assert dict(start["headers"])[b"location"] == b"/x"
    assert body["body"] == '{"a":"é"}'.encode()


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_content_have_no_length(status: int) -> None:
    start, body = await sent_by(Answer(status, b"", []))

    assert b"content-length" not in dict(start["headers"])
    assert body["body"] == b""


async def test_headers_shared_by_answers_are_not_changed() -> None:
    answer = json_answer({})
    before = list(answer.headers)
    await sent_by(answer)

    assert answer.headers == before


async def test_a_body_is_read_up_to_its_limit() -> None:
    assert await read_chunks(receiving(piece(b"abc", more=False)), 3) == b"abc"
    assert await read_chunks(receiving(piece(b"a"), piece(b""), piece(b"bc", more=False)), 3) == b"abc"
    assert await read_chunks(receiving(piece(b"ab"), piece(b"cd")), 3) is None


async def test_a_connection_that_ends_early_is_malformed() -> None:
    with pytest.raises(Malformed):
        await read_chunks(receiving(piece(b"a"), {"type": "http.disconnect"}), 3)
