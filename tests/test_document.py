"""Documents: what they accept, and ids that stay the same."""

from __future__ import annotations

import math
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from uuid import UUID

import numpy as np
import pytest

from s3_retriever import Document
from s3_retriever.errors import InputError


class Colour(Enum):
    """Its value is kept."""

    RED = "red"


def test_the_same_document_has_the_same_id():
    one = Document("text", metadata={"year": 2024, "title": "Ünïcode"})
    assert one.id == Document("text", metadata={"title": "Ünïcode", "year": 2024}).id
    others = [
        Document("text"),
        Document("text2", metadata={"year": 2024, "title": "Ünïcode"}),
        Document("text", metadata={"year": 2025, "title": "Ünïcode"}),
        Document(""),
    ]
    assert len({one.id, *(other.id for other in others)}) == 5
    assert Document("text", id="mine").id == "mine"


def test_the_id_does_not_change_between_releases():
    assert Document("text", metadata={"a": 1}).id == "7514685775c8d9971e62fb851c623886"


@pytest.mark.parametrize(
    ("metadata", "title"), [({}, ""), ({"title": "A"}, "A"), ({"title": 3}, "")]
)
def test_title(metadata, title):
    assert Document("text", metadata=metadata).title == title


def test_the_unit_is_a_sentence_unless_said_otherwise_and_not_part_of_the_id():
    assert Document("a\nb").unit == "sentence"
    assert Document("a\nb", unit="line").id == Document("a\nb").id


def test_a_long_title_is_read_up_to_a_bound_and_kept_whole():
    title = "word " * 1_000
    document = Document("text", metadata={"title": title})
    assert document.title == ("word " * 80).rstrip() and document.metadata["title"] == title
    assert Document("", metadata={"title": "x" * 999}).title == "x" * 400


def test_awkward_text_is_kept_as_it_is():
    text = "\0 👩\u200d👩 \ufeff e\u0301\r\n"
    assert Document(text).text == text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": None}, "must be a string, not NoneType"),
        ({"text": b"bytes"}, "must be a string, not bytes"),
        ({"text": "ab\ud800", "id": "x"}, "Document 'x' has a lone surrogate at character 2"),
        ({"text": "a", "id": 5}, "id must be a string, not int"),
        ({"text": "a", "id": "\udcff"}, "id .* has a lone surrogate"),
        ({"text": "a", "metadata": {"x": object()}}, "metadata that JSON cannot hold"),
        ({"text": "a", "metadata": {"x": float("nan")}}, "metadata that JSON cannot hold"),
        ({"text": "a", "metadata": {"x": 1, (2, 3): 3}}, "metadata that JSON cannot hold"),
        ({"text": "a", "unit": "word"}, "unit must be sentence or line, not 'word'"),
        ({"text": "a", "unit": ["line"]}, "unit must be sentence or line"),
        ({"text": "a", "metadata": None}, "metadata that JSON cannot hold"),
        ({"text": "a", "metadata": {"title": "\ud800"}}, "metadata with a lone surrogate"),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Document(**fields)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([1, 2]), [1, 2]),
        (np.datetime64("2024-05-01"), "2024-05-01"),
        (np.datetime64("2024-05-01T10:00:00.000000000"), "2024-05-01T10:00:00"),
        (date(2024, 5, 1), "2024-05-01"),
        (datetime(2024, 5, 1, 10, tzinfo=timezone.utc), "2024-05-01T10:00:00+00:00"),
        (Decimal("5"), 5),
        (Decimal("0.1"), 0.1),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("a/b"), "a/b"),
        (Colour.RED, "red"),
        ((1, (2,)), [1, [2]]),
        pytest.param({"b", "a"}, ["a", "b"], id="set"),
        ({"inner": {"at": date(2024, 5, 1)}}, {"inner": {"at": "2024-05-01"}}),
    ],
    ids=repr,
)
def test_metadata_becomes_what_json_holds(value, plain):
    document = Document("text", metadata={"key": value})
    assert document.metadata == {"key": plain}
    assert type(document.metadata["key"]) is type(plain)
    assert document.id == Document("text", metadata={"key": plain}).id


def test_a_document_keeps_its_own_metadata():
    metadata = {"tags": ["a"]}
    document = Document("text", metadata=metadata)
    metadata["tags"].append("b")
    assert document.metadata == {"tags": ["a"]}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"day": np.datetime64("NaT")}, r"metadata\['day'\] is of type datetime64"),
        ({"price": float("nan")}, r"metadata\['price'\] is nan; use None or leave it out"),
        ({"a": [1, {"b": -math.inf}]}, r"metadata\['a'\]\[1\]\['b'\] is -inf"),
        ({"a": b"x"}, r"metadata\['a'\] is bytes; decode it"),
        ({"a": 1j}, r"metadata\['a'\] is of type complex, which has no JSON form"),
        ({"a": {5.5: 1}}, r"metadata\['a'\] has the key 5.5, which is not a string"),
        ({1: "a", "1": "b"}, "metadata has a key twice, as a number and as a string"),
        ({True: 1}, "metadata has the key True, which is not a string"),
        ({"a": 10**400}, r"metadata\['a'\] is a number of more than 1024 bits"),
        ([("a", 1)], "a list, not a mapping"),
    ],
    ids=str,
)
def test_metadata_that_is_refused_is_named(metadata, message):
    with pytest.raises(InputError, match=message):
        Document("text", metadata=metadata)


def test_metadata_in_a_circle_is_refused():
    metadata = {}
    metadata["a"] = metadata
    with pytest.raises(InputError, match="metadata is nested more than 64 levels deep"):
        Document("text", metadata=metadata)


def test_keys_that_are_whole_numbers_become_text():
    assert Document("text", metadata={1: {2: "a"}}).metadata == {"1": {"2": "a"}}
