"""The form that submits a job."""

from __future__ import annotations

import httpx
import msgspec

from jobflow.pool import Connection
from tests.support.pages import visit
from tests.support.rows import row_of

PATH = "/dashboard/create"


async def made(database: Connection, path: str) -> dict[str, object]:
    from uuid import UUID

    row = await row_of(database, UUID(path.rpartition("/")[2]))
    assert row is not None
    return row


async def test_a_type_with_a_schema_has_its_fields(http: httpx.AsyncClient, database: Connection) -> None:
    page = await (await visit(http, PATH)).submit(PATH, type="sum")  # without JavaScript the button shows the fields
    assert page.status == 422
    page = await visit(http, f"{PATH}?type=sum")
    assert {"payload.a", "payload.b", "type", "queue"} <= set(dict(page.fields(PATH)))
    done = await page.submit(PATH, **{"payload.a": "2", "payload.b": "3"})
    assert done.status == 200
    assert done.path.startswith("/dashboard/jobs/")
    assert "Submitted." in done.text
    row = await made(database, done.path)
    assert (msgspec.json.decode(row["payload"]), row["queue"], row["max_attempts"]) == ({"a": 2, "b": 3}, "sums", 3)  # type: ignore[call-overload]


async def test_other_types_take_json_and_all_options(http: httpx.AsyncClient, database: Connection) -> None:
    page = await visit(http, f"{PATH}?type=echo")
    done = await page.submit(
        PATH, payload='{"to": ["a", 1.5]}', queue="mail", priority="2", max_attempts="7", timeout="1.5",
        run_at="2030-01-31T12:00", expires_at="2031-01-31T12:00", unique_key="u-1", tags="a, b ,,a",
    )  # fmt: skip
    row = await made(database, done.path)
    assert msgspec.json.decode(row["payload"]) == {"to": ["a", 1.5]}  # type: ignore[call-overload]
    assert (row["queue"], row["priority"], row["max_attempts"], row["timeout"]) == ("mail", 2, 7, 1.5)
    assert str(row["run_at"]).startswith("2030-01-31 12:00:00")
    assert (row["unique_key"], row["tags"], row["status"]) == ("u-1", ["a", "b"], "scheduled")


async def test_faults_stand_at_their_fields_and_what_was_typed_stays(http: httpx.AsyncClient) -> None:
    page = await visit(http, f"{PATH}?type=sum")
    wrong = await page.submit(
        PATH, **{"payload.a": "two", "payload.b": "-1", "priority": "11", "queue": "No Queue", "delay": "x"}
    )
    assert wrong.status == 422
    text = wrong.answer.text
    for sentence in (
        "must be a whole number",
        "priority must be 0 to 9",
        "queue must be 1 to 64",
        "delay must be a number",
    ):
        assert sentence in wrong.text, sentence
    typed = dict(wrong.fields(PATH))
    assert (typed["payload.a"], typed["priority"], typed["queue"], typed["delay"]) == ("two", "11", "No Queue", "x")
    assert text.count('aria-invalid="true"') == text.count('class="fault"') >= 4
    assert 'details class="more" id="more" open' in text


async def test_a_fault_is_told_once(http: httpx.AsyncClient) -> None:
    wrong = await (await visit(http, f"{PATH}?type=sum")).submit(PATH)
    assert wrong.status == 422
    assert "One field does not fit." in wrong.text
    assert wrong.answer.text.count('class="fault"') == 1
    assert "required field" not in wrong.text  # of the payload as a whole


async def test_the_types_own_rules_hold(http: httpx.AsyncClient) -> None:
    page = await visit(http, f"{PATH}?type=sum")
    wrong = await page.submit(PATH, **{"payload.a": "1", "payload.b": "-1"})
    assert "Expected `int` >= 0" in wrong.text
    assert 'id="p-2-fault"' in wrong.answer.text


async def test_bad_json_and_a_taken_key(http: httpx.AsyncClient) -> None:
    page = await visit(http, f"{PATH}?type=echo")
    wrong = await page.submit(PATH, payload='{"a": ')
    assert "This is not JSON" in wrong.text
    assert dict(wrong.fields(PATH))["payload"] == '{"a": '
    for name, value in (("payload", "[1]"), ("payload", '{"a": NaN}'), ("payload", '{"a": "\\u0000"}'), ("type", ""), ("type", "a b"),
                        ("expires_at", "2020-01-01T00:00"), ("tags", "x" * 65), ("unique_key", "\x00")):  # fmt: skip
        answer = await page.submit(PATH, **{name: value})
        assert answer.status == 422, (name, value)
        assert 'class="fault"' in answer.answer.text or "faults" in answer.answer.text

    await page.submit(PATH, unique_key="one", run_at="2030-01-31T12:00")
    taken = await page.submit(PATH, unique_key="one", run_at="2030-01-31T12:00")
    assert taken.status == 409
    assert 'id="fault-unique_key"' in taken.answer.text


async def test_a_type_that_nobody_handles_is_taken_with_a_word(http: httpx.AsyncClient) -> None:
    page = await visit(http, f"{PATH}?type=nobody.knows")
    assert "There is no handler for nobody.knows here" in page.text
    assert (await page.submit(PATH, delay="1000")).status == 200
