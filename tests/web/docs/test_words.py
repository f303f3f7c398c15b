"""Nothing is left without words, and no words are left without something."""

from __future__ import annotations

import re

from jobflow.web.docs.words import ERRORS, MEANINGS, NOTES, PARAMETERS, SPECIAL_ERRORS, SUBJECTS
from tests.web.docs.document import OPERATIONS, SCHEMAS


def test_every_operation_belongs_to_one_subject() -> None:
    named = [id for subject in SUBJECTS for id in subject.operations]
    assert sorted(named) == sorted(OPERATIONS)
    assert set(NOTES) <= set(OPERATIONS)


def test_every_member_has_a_meaning() -> None:
    assert {name: list(schema["properties"]) for name, schema in SCHEMAS.items()} == {
        name: list(meanings)
        for name, meanings in sorted(MEANINGS.items(), key=lambda pair: list(SCHEMAS).index(pair[0]))
    }


def test_every_parameter_has_a_meaning() -> None:
    parameters = [parameter for _, _, operation in OPERATIONS.values() for parameter in operation["parameters"]]
    silent = {parameter["name"] for parameter in parameters if not parameter["description"]}
    assert silent == set(PARAMETERS)


def test_every_error_says_what_to_do() -> None:
    statuses = {int(s) for _, _, operation in OPERATIONS.values() for s in operation["responses"] if int(s) >= 400}
    assert statuses | {405} == set(ERRORS)
    for id, status in SPECIAL_ERRORS:
        assert str(status) in OPERATIONS[id][2]["responses"]


def test_code_in_words_is_closed() -> None:
    texts = [*ERRORS.values(), *SPECIAL_ERRORS.values(), *PARAMETERS.values(), *(s.text for s in SUBJECTS)]
    texts += [note for notes in NOTES.values() for note in notes]
    texts += [meaning for meanings in MEANINGS.values() for meaning in meanings.values()]
    for text in texts:
        assert text.count("`") % 2 == 0, text
        assert not text or re.search(r"[.:]$", text), text
