"""What `where` admits, on real segments of documents without sentences."""

from __future__ import annotations

import logging
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum

import numpy as np
import pytest
from helpers.segments import bare

from s3_retriever import Document, InputError
from s3_retriever.features import Layout
from s3_retriever.index import Store
from s3_retriever.search.filtering import passing_documents

LAYOUT = Layout({"hidden.5": 300, "key.3": 70_000})

BOOKS = {
    "dune": {"year": 1965, "price": 9.5, "tags": ["sand", "spice"], "author": {"name": "Frank"}},
    "emma": {"year": 1815, "price": 7, "tags": ["village"], "author": {"name": "Jane", "age": 40}},
    "text": {"year": "1965", "draft": True, "tags": "spice", "author.name": "Jane"},
    "odd": {"year": None, "draft": 1, "tags": [], "date": date(2024, 5, 1)},
    "pair": {"draft": False, "v": [True, 2], "date": datetime(2024, 6, 1, 12)},
    "ones": {"draft": 0, "v": [1, 2], "date": "2023-12-31"},
    "bare": {},
}


def store_of(*parts):
    """An index with a segment for each mapping from ids to metadata."""
    store = Store.create(None, {})
    for part in parts:
        with store.append(LAYOUT) as writer:
            for name, metadata in part.items():
                writer.add(bare(Document("", name, metadata)))
    return store


@pytest.fixture(scope="module")
def books():
    ids = list(BOOKS)
    halves = [{name: BOOKS[name] for name in part} for part in (ids[:4], ids[4:])]
    return store_of(*halves).snapshot()


def found(snapshot, where):
    """Ids of the documents that pass."""
    passing = passing_documents(snapshot, where)
    return {
        segment.ids()[ordinal]
        for segment in snapshot.segments
        for ordinal in np.flatnonzero(passing(segment)).tolist()
    }


EVERY = set(BOOKS)


class Colour(Enum):
    """Its value counts."""

    RED = 1965


def _name(value: object) -> str:
    """The same name of a case in every process."""
    if callable(value):
        return "function"
    if isinstance(value, (set, frozenset)):
        return "-".join(sorted(value)) or "none"
    return str(value).partition(" object at ")[0]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, EVERY),
        ({"year": 1965}, {"dune"}),
        ({"year": 1965.0}, {"dune"}),
        ({"year": np.int64(1965)}, {"dune"}),
        ({"year": np.array(1965)}, {"dune"}),
        ({"year": Decimal(1965)}, {"dune"}),
        ({"year": Colour.RED}, {"dune"}),
        ({"year": "1965"}, {"text"}),
        ({"year": None}, {"odd"}),
        ({"draft": True}, {"text"}),
        ({"draft": np.bool_(True)}, {"text"}),
        ({"draft": 1}, {"odd"}),
        ({"draft": False}, {"pair"}),
        ({"draft": 0}, {"ones"}),
        ({"v": [True, 2]}, {"pair"}),
        ({"v": [1, 2]}, {"ones"}),
        ({"v": (1, 2)}, {"ones"}),
        ({"v": np.array([1, 2])}, {"ones"}),
        ({"v": [2, 1]}, set()),
        ({"tags": []}, {"odd"}),
        ({"tags": "sand"}, set()),
        ({"author": {"name": "Frank"}}, {"dune"}),
        ({"author": {"age": 40, "name": "Jane"}}, {"emma"}),
        ({"author": {"name": "Jane"}}, set()),
        ({"author.name": "Jane"}, {"emma", "text"}),
        ({"author.age": {"$gt": 30}}, {"emma"}),
        ({"year": {"$eq": 1965}}, {"dune"}),
        ({"year": {"$ne": 1965}}, EVERY - {"dune"}),
        ({"year": {"$gt": 1815}}, {"dune"}),
        ({"year": {"$gte": 1815}}, {"dune", "emma"}),
        ({"year": {"$lt": 1965}}, {"emma"}),
        ({"year": {"$lte": 1965}}, {"dune", "emma"}),
        ({"year": {"$gte": 1815, "$lt": 1965}}, {"emma"}),
        ({"year": {"$gt": "1000"}}, {"text"}),
        ({"year": {"$lt": -(10**300)}}, set()),
        ({"draft": {"$gt": -1}}, {"odd", "ones"}),
        ({"date": {"$gte": date(2024, 5, 1)}}, {"odd", "pair"}),
        ({"date": {"$lt": datetime(2024, 6, 1, 12, 1)}}, {"odd", "pair", "ones"}),
        ({"date": {"$gt": np.datetime64("2024-05-01")}}, {"pair"}),
        ({"year": {"$in": [1815, "1965", 3]}}, {"emma", "text"}),
        ({"year": {"$in": np.array([1815, 1965])}}, {"dune", "emma"}),
        ({"year": {"$in": {1815}}}, {"emma"}),
        ({"year": {"$in": []}}, set()),
        ({"draft": {"$in": [1]}}, {"odd"}),
        ({"year": {"$nin": [1815, 1965, None]}}, EVERY - {"dune", "emma", "odd"}),
        ({"tags": {"$contains": "spice"}}, {"dune", "text"}),
        ({"tags": {"$contains": "pic"}}, {"text"}),
        ({"tags": {"$icontains": "PIC"}}, {"text"}),
        ({"tags": {"$icontains": "spice, sand"}}, set()),
        ({"tags": {"$not_contains": "spice"}}, EVERY - {"dune", "text"}),
        ({"v": {"$contains": 1}}, {"ones"}),
        ({"v": {"$contains": True}}, {"pair"}),
        ({"year": {"$exists": True}}, {"dune", "emma", "text", "odd"}),
        ({"year": {"$exists": False}}, {"pair", "ones", "bare"}),
        ({"nothing": {"$exists": False}}, EVERY),
        ({"nothing": {"$exists": True}}, set()),
        ({"author.age": {"$exists": True}}, {"emma"}),
        ({"$and": [{"year": 1965}, {"price": {"$gt": 9}}]}, {"dune"}),
        ({"$or": [{"year": 1815}, {"draft": True}, {"v": [1, 2]}]}, {"emma", "text", "ones"}),
        ({"$not": {"year": {"$gte": 1815}}}, EVERY - {"dune", "emma"}),
        ({"$not": [{"year": 1965}, {"year": 1815}]}, EVERY - {"dune", "emma"}),
        ({"year": {"$not": {"$gte": 1815}}}, EVERY - {"dune", "emma"}),
        ({"year": {"$not": 1965}}, EVERY - {"dune"}),
        ({"year": {"$or": [{"$lt": 1900}, {"$gt": 1960}, "1965"]}}, {"dune", "emma", "text"}),
        ({"price": {"$gt": 8}, "$or": [{"year": 1}, {"year": 1965}]}, {"dune"}),
        (
            {"$or": [{"$and": [{"year": 1965}, {"$not": {"price": 7}}]}, {"draft": False}]},
            {"dune", "pair"},
        ),
        (lambda metadata: metadata.get("year"), {"dune", "emma", "text"}),
        (lambda metadata: "v" in metadata, {"pair", "ones"}),
    ],
    ids=_name,
)
def test_documents_that_pass(books, where, expected):
    assert found(books, where) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (["year"], "where must be a mapping such as .* not list"),
        ("year", "where must be a mapping such as .* not str"),
        (dict, "where must be a mapping such as .* not type"),
        ({5.5: 1}, "where has the key 5.5, which is not a string"),
        ({"year": {"$above": 3}}, r"where\['year'\]\['\$above'\] is not an operator; .*\$eq, \$ne"),
        ({"$xor": [{"year": 1}]}, r"where\['\$xor'\] is not an operator; where knows \$eq"),
        ({"year": {"$neq": 3}}, r"where\['year'\]\['\$neq'\] is not an operator"),
        ({"$gt": 3}, "needs a key; write {'key': {'[$]gt': ...}}"),
        ({"year": {"$gt": 3, "x": 1}}, "mixes operators with the key 'x'"),
        ({"author": {"age": {"$gt": 3}}}, "write the keys with a dot .* 'author.age'"),
        ({"year": {"$gt": [1]}}, r"\['\$gt'\] must be a number, a text or a date, not \[1\]"),
        ({"year": {"$lte": True}}, "must be a number, a text or a date, not True"),
        ({"year": {"$in": "1965"}}, r"\['\$in'\] must be a list, not '1965'"),
        ({"year": {"$nin": 1965}}, r"\['\$nin'\] must be a list, not 1965"),
        ({"year": {"$exists": "yes"}}, r"\['\$exists'\] must be true or false, not 'yes'"),
        ({"$and": {"year": 1}}, r"where\['\$and'\] must be a list of conditions, not {"),
        ({"$or": []}, r"where\['\$or'\] must be a list of conditions, not \[\]"),
        ({"$or": [{"year": 1}, 5]}, r"where\['\$or'\]\[1\] must be a mapping .* not 5"),
        ({"$not": "year"}, r"where\['\$not'\] must be a mapping"),
        ({"year": float("nan")}, r"where\['year'\] is nan; use None"),
        ({"year": {"$gt": float("inf")}}, r"where\['year'\]\['\$gt'\] is inf"),
        ({"year": b"1965"}, r"where\['year'\] is bytes; decode it"),
        ({"year": object()}, r"where\['year'\] is of type object"),
        (lambda metadata: metadata["year"], "fails for document 'pair': KeyError: 'year'"),
        (lambda _: np.array([1, 2]), "fails for document 'dune': ValueError"),
    ],
    ids=_name,
)
def test_filters_that_are_refused(books, where, message):
    with pytest.raises(InputError, match=message) as caught:
        found(books, where)
    assert "\n" not in str(caught.value)


def test_filters_nested_without_end_are_refused(books):
    where = {"year": 1}
    for _ in range(5_000):
        where = {"$not": where}
    with pytest.raises(InputError, match="where is nested more than 64 levels deep"):
        found(books, where)


def test_a_key_that_no_document_has_is_warned_of(books, caplog):
    with caplog.at_level(logging.WARNING):
        for where in ({"year": 3}, {"nothing": {"$exists": True}}, {"author.name": 1}):
            found(books, where)
        found(store_of().snapshot(), {"year": 3})
        assert caplog.messages == []
        assert found(books, {"$or": [{"yaer": 1965}, {"draft": True}]}) == {"text"}
        found(books, {"publisher": {"$ne": 1}})
    assert caplog.messages == [
        "No document has the metadata key 'yaer', which where names (similar keys: 'year').",
        "No document has the metadata key 'publisher', which where names (their keys: 'author', "
        "'author.age', 'author.name', 'date', 'draft', 'price', 'tags', 'v').",
    ]


def test_deleted_documents_do_not_pass():
    store = store_of({"a": {"n": 1}, "b": {"n": 1}, "c": {"n": 2}})
    store.delete(["a"])
    snapshot, seen = store.snapshot(), []
    assert found(snapshot, {"n": 1}) == {"b"}
    assert found(snapshot, {"n": {"$ne": 1}}) == {"c"}
    found(snapshot, lambda metadata: seen.append(metadata) or True)
    assert seen == [{"n": 1}, {"n": 2}]
    with pytest.raises(TypeError):
        seen[0]["n"] = 3


def test_comparisons_agree_with_python(caplog):
    """Random values and bounds of one kind compare as in Python, of two kinds never."""
    rng = np.random.default_rng(0)
    moments = [datetime(2020 + year, 1, 1, tzinfo=timezone.utc).isoformat() for year in range(5)]
    values = [*rng.integers(-5, 5, 40).tolist(), *rng.random(20).tolist(), 2**70, -(2**70) - 1]
    values += [*moments, "", "a", "é", True, False, None, [1], {"a": 1}]
    snapshot = store_of({str(at): {"x": value} for at, value in enumerate(values)}).snapshot()
    comparisons = {
        "$gt": lambda value, bound: value > bound,
        "$gte": lambda value, bound: value >= bound,
        "$lt": lambda value, bound: value < bound,
        "$lte": lambda value, bound: value <= bound,
    }
    for bound in [*values[:66], 2**70 + 1, 0.5, "2022", "zz"]:
        for operator, compare in comparisons.items():
            expected = {
                str(at)
                for at, value in enumerate(values)
                if _kind(value) is _kind(bound) and compare(value, bound)
            }
            assert found(snapshot, {"x": {operator: bound}}) == expected, (operator, bound)


def _kind(value):
    return float if type(value) is int else type(value)
