"""Filters mean what they mean to LlamaIndex's own vector store, and more than that store takes."""

from __future__ import annotations

import logging

import pytest
from llama_index.core.vector_stores import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    utils,
)
from s3_retriever import Document, S3Index

from llama_index.retrievers.s3_attention.filters import where_of

ROWS = [
    {"year": 2023, "topic": "Leave", "tags": ["hr", "time"], "empty": [], "none": None},
    {"year": 2024, "topic": "leave of absence", "tags": ["hr"], "empty": ""},
    {"year": 2025, "topic": "", "tags": []},
    {},
]
CASES = [
    ("year", "==", 2024, [1]),
    ("year", "!=", 2024, [0, 2, 3]),
    ("year", ">", 2024, [2]),
    ("year", ">=", 2024, [1, 2]),
    ("year", "<", 2024, [0]),
    ("year", "<=", 2024, [0, 1]),
    ("year", "in", [2023, 2025], [0, 2]),
    ("year", "nin", [2023, 2025], [1, 3]),
    ("tags", "any", ["time", "money"], [0]),
    ("tags", "all", ["hr", "time"], [0]),
    ("tags", "contains", "hr", [0, 1]),
    ("topic", "text_match", "leave", [1]),
    ("topic", "text_match_insensitive", "LEAVE", [0, 1]),
    ("empty", "is_empty", None, [0, 1, 2, 3]),
    ("topic", "is_empty", None, [2, 3]),
    ("none", "==", 1, []),
    ("none", "!=", 1, [0, 1, 2, 3]),
]


@pytest.fixture(scope="module")
def passing():
    """Says which rows pass filters."""
    index = S3Index.create()
    index.add(
        [Document("A row.", id=str(number), metadata=row) for number, row in enumerate(ROWS)],
        progress=False,
    )

    def search(filters: MetadataFilters) -> list[int]:
        where = where_of(filters)
        spans = index.search("row", 9, mode="bm25", unique=False, where=where)
        return sorted(int(span.document_id) for span in spans)

    return search


def one(key, operator, value) -> MetadataFilter:
    return MetadataFilter(key=key, operator=operator, value=value)


def test_every_operator_has_a_case():
    assert {operator for _, operator, _, _ in CASES} >= {item.value for item in FilterOperator}


@pytest.mark.parametrize(("key", "operator", "value", "expected"), CASES)
def test_operators(passing, key, operator, value, expected):
    if operator not in {item.value for item in FilterOperator}:
        pytest.skip("this release of llama-index-core does not have it")
    filters = MetadataFilters(filters=[one(key, operator, value)])
    assert passing(filters) == expected
    if not hasattr(utils, "build_metadata_filter_fn"):
        return  # llama-index-core before 0.14
    theirs = utils.build_metadata_filter_fn(lambda number: ROWS[int(number)], filters)
    assert [number for number in range(len(ROWS)) if theirs(str(number))] == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("and", [1]),
        ("or", [0, 1, 2]),
        ("not", [3]),
        (None, [1]),
    ],
)
def test_conditions(passing, condition, expected):
    parts = [one("year", ">=", 2024), one("tags", "any", ["hr"])]
    assert passing(MetadataFilters(filters=parts, condition=condition)) == expected


def test_filters_may_be_nested(passing):
    inner = MetadataFilters(filters=[one("year", "==", 2024)], condition="not")
    deeper = MetadataFilters(filters=[inner, one("tags", "contains", "hr")])
    either = [deeper, one("year", ">", 2024)]
    assert passing(MetadataFilters(filters=either, condition="or")) == [0, 2]


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("==", None, []),
        ("!=", None, [0, 1, 2, 3]),
        ("in", [], []),
        ("nin", [], [0, 1, 2, 3]),
        ("any", [], []),
        ("all", [], [0, 1, 2]),
    ],
)
def test_nothing_to_compare_with(passing, operator, value, expected):
    assert passing(MetadataFilters(filters=[one("year", operator, value)])) == expected


@pytest.mark.parametrize(("condition", "expected"), [("and", [1]), ("or", []), ("not", [1])])
def test_a_group_without_filters(passing, condition, expected):
    inner = MetadataFilters(filters=[], condition=condition)
    assert passing(MetadataFilters(filters=[inner, one("year", "==", 2024)])) == expected


def test_a_key_that_no_node_has_is_logged(passing, caplog):
    with caplog.at_level(logging.WARNING):
        assert passing(MetadataFilters(filters=[one("yaer", "==", 2024)])) == []
    assert "'yaer'" in caplog.text and "'year'" in caplog.text


def test_a_key_that_looks_like_an_operator_is_refused():
    with pytest.raises(ValueError, match="begin with"):
        where_of(MetadataFilters(filters=[one("$year", "==", 1)]))


def test_no_filter_passes_everything():
    assert where_of(None) is None
    assert where_of(MetadataFilters(filters=[])) is None


@pytest.mark.parametrize(
    ("key", "operator", "value"),
    [
        ("topic", ">", 3),
        ("year", "contains", "2"),
        ("year", "text_match", "2"),
        ("year", "text_match_insensitive", "2"),
        ("year", "any", ["2"]),
    ],
)
def test_what_cannot_be_compared_does_not_match(passing, key, operator, value):
    assert passing(MetadataFilters(filters=[one(key, operator, value)])) == []


def test_an_unknown_operator_is_refused_by_name():
    odd = MetadataFilter.model_construct(key="year", value=1, operator="near")
    with pytest.raises(ValueError, match=r"'year' has the operator 'near'.*text_match"):
        where_of(MetadataFilters.model_construct(filters=[odd], condition="and"))


def test_an_unknown_condition_is_refused_by_name():
    part = one("year", "==", 1)
    with pytest.raises(ValueError, match="'xor' is not supported"):
        where_of(MetadataFilters.model_construct(filters=[part], condition="xor"))


@pytest.mark.parametrize(
    ("operator", "value", "message"),
    [
        ("in", "x", "needs a list"),
        ("nin", 3, "needs a list"),
        ("any", "x", "needs a list"),
        ("all", None, "needs a list"),
        (">", None, "needs a number or a text"),
        ("<=", [2024], "needs a number or a text"),
        ("text_match", 3, "needs a text"),
        ("text_match_insensitive", ["x"], "needs a text"),
    ],
)
def test_a_value_that_does_not_suit_its_operator_is_refused(operator, value, message):
    with pytest.raises(ValueError, match=message):
        where_of(MetadataFilters(filters=[one("year", operator, value)]))
