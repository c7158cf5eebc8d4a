"""Documents: what they accept, and ids that stay the same."""

from __future__ import annotations

import pytest

from s3_retriever import Document
from s3_retriever.errors import InputError


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
        ({"text": "a", "metadata": {"x": 1, 2: 3}}, "metadata that JSON cannot hold"),
        ({"text": "a", "unit": "word"}, "unit must be sentence or line, not 'word'"),
        ({"text": "a", "unit": ["line"]}, "unit must be sentence or line"),
        ({"text": "a", "metadata": None}, "metadata that JSON cannot hold"),
        ({"text": "a", "metadata": {"title": "\ud800"}}, "metadata with a lone surrogate"),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Document(**fields)
