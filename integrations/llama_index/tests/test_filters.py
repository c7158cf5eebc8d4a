"""Filters mean what they mean to LlamaIndex's own vector store, and more than that store takes."""

from __future__ import annotations

import pytest
from llama_index.core.vector_stores import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    utils,
)

from llama_index.retrievers.s3_attention.filters import predicate

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


def passing(filters: MetadataFilters) -> list[int]:
    matches = predicate(filters)
    return [number for number, row in enumerate(ROWS) if matches is None or matches(row)]


def one(key, operator, value) -> MetadataFilter:
    return MetadataFilter(key=key, operator=operator, value=value)


def test_every_operator_has_a_case():
    assert {operator for _, operator, _, _ in CASES} >= {item.value for item in FilterOperator}


@pytest.mark.parametrize(("key", "operator", "value", "expected"), CASES)
def test_operators(key, operator, value, expected):
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
def test_conditions(condition, expected):
    parts = [one("year", ">=", 2024), one("tags", "any", ["hr"])]
    assert passing(MetadataFilters(filters=parts, condition=condition)) == expected


def test_filters_may_be_nested():
    inner = MetadataFilters(filters=[one("year", "==", 2024)], condition="not")
    deeper = MetadataFilters(filters=[inner, one("tags", "contains", "hr")])
    either = [deeper, one("year", ">", 2024)]
    assert passing(MetadataFilters(filters=either, condition="or")) == [0, 2]


def test_no_filter_passes_everything():
    assert predicate(None) is None
    assert predicate(MetadataFilters(filters=[])) is None


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
def test_what_cannot_be_compared_does_not_match(key, operator, value):
    assert passing(MetadataFilters(filters=[one(key, operator, value)])) == []


def test_an_unknown_operator_is_refused_by_name():
    odd = MetadataFilter.model_construct(key="year", value=1, operator="near")
    with pytest.raises(ValueError, match=r"'year' has the operator 'near'.*text_match"):
        predicate(MetadataFilters.model_construct(filters=[odd], condition="and"))


def test_an_unknown_condition_is_refused_by_name():
    part = one("year", "==", 1)
    with pytest.raises(ValueError, match="'xor' is not supported"):
        predicate(MetadataFilters.model_construct(filters=[part], condition="xor"))


@pytest.mark.parametrize(
    ("operator", "value", "message"),
    [
        ("in", "x", "needs a list"),
        ("nin", 3, "needs a list"),
        ("any", "x", "needs a list"),
        ("all", None, "needs a list"),
        ("text_match", 3, "needs a text"),
        ("text_match_insensitive", ["x"], "needs a text"),
    ],
)
def test_a_value_that_does_not_suit_its_operator_is_refused(operator, value, message):
    with pytest.raises(ValueError, match=message):
        predicate(MetadataFilters(filters=[one("year", operator, value)]))
