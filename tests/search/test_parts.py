"""A collection in parts gives what the same documents give in one place."""

from __future__ import annotations

import random
from dataclasses import fields

import pytest
from helpers.parts import (
    Asked,
    Collection,
    Liking,
    LocalParts,
    random_question,
    random_recipe,
    search_in_parts,
)

from s3_retriever.search import Limits, search
from s3_retriever.search.documents import DocumentResult
from s3_retriever.search.gathering import search_parts
from s3_retriever.search.part import Request
from s3_retriever.search.pipeline import Query
from s3_retriever.search.reranking import SecondLook

WHERES = [
    None,
    None,
    {"kind": "a"},
    {"n": {"$gte": 3}},
    lambda each: each["n"] != 2,
    {"n": 99},
    {"$ids": ["d0", "d7", "d8", "x"]},
]


def close(own, other):
    """Equal, but for the rounding of numbers."""
    if isinstance(own, float) or isinstance(other, float):
        return own == pytest.approx(other, rel=1e-9, abs=1e-9)
    if isinstance(own, dict):
        return own.keys() == other.keys() and all(close(own[key], other[key]) for key in own)
    if isinstance(own, (list, tuple)):
        return len(own) == len(other) and all(map(close, own, other))
    if hasattr(own, "__dataclass_fields__"):
        return all(close(getattr(own, f.name), getattr(other, f.name)) for f in fields(own))
    return own == other


def random_limits(rng, group_by):
    return Limits(
        k=rng.choice([None, 1, 5, 50]),
        token_budget=rng.choice([None, 20, 100]),
        min_relevance=rng.choice([0.0, 0.0, 0.05, 0.5]),
        order=rng.choice(["score", "document"]),
        unique=rng.random() < 0.7,
        spans_per_document=rng.choice([None, 1, 3]) if group_by is None else 3,
        context=rng.choice(["sentence", "sentence", "passage", "neighbours", "section"]),
    )


@pytest.mark.parametrize("seed", range(50))
def test_ids_order_and_scores_are_those_of_one_index(seed):
    rng = random.Random(seed)
    collection = Collection(seed, rng.choice([1, 5, 12, 40]), rng.randint(1, 6))
    for case in range(5):
        question, encoded = random_question(5 * seed + case)
        recipe = random_recipe(5 * seed + case)
        mode = rng.choice(["hybrid", "hybrid", "s3", "bm25"])
        group_by = rng.choice([None, None, "document"])
        where, limits = rng.choice(WHERES), random_limits(rng, group_by)
        look = None if (seed + case) % 3 else SecondLook(1 + 3 * case, Liking())
        whole = search(
            collection.whole.snapshot(), question, recipe, Asked(encoded), limits,
            mode=mode, where=where, group_by=group_by, look=look,
        )  # fmt: skip
        parts = search_in_parts(
            collection.parts, question, encoded, recipe, limits, mode, where, group_by, look
        )

        def names(found):
            return [
                (each.document_id, [span.id for span in each.spans])
                if isinstance(each, DocumentResult)
                else each.id
                for each in found
            ]

        assert names(parts) == names(whole)
        assert close(parts, whole)


def test_a_key_that_some_part_has_is_known(caplog):
    collection = Collection(3, 12, 4)
    question, encoded = random_question(3)

    def search_with(where):
        caplog.clear()
        search_in_parts(
            collection.parts, question, encoded, random_recipe(0), Limits(5), "bm25", where, None
        )
        return [record.getMessage() for record in caplog.records]

    titled = [store.snapshot() for store in collection.parts]
    titled = ["title" in each.metadata_keys for store in titled for each in store.segments]
    assert any(titled)
    assert not all(titled)
    assert search_with({"title": "sea"}) == []
    assert search_with({"kinds": "a", "n": 1}) == [
        "No document has the metadata key 'kinds', which where names (similar keys: 'kind')."
    ]


def test_a_document_that_fills_a_part_and_parts_without_any_are_searched():
    collection = Collection(1, 1, 5)
    question, encoded = random_question(1)
    for mode in ("hybrid", "s3", "bm25"):
        whole = search(
            collection.whole.snapshot(), question, random_recipe(0), Asked(encoded), Limits(5),
            mode=mode,
        )  # fmt: skip
        parts = search_in_parts(
            collection.parts, question, encoded, random_recipe(0), Limits(5), mode, None, None
        )
        assert close(parts, whole)


def test_no_more_is_asked_than_selection_needs():
    collection = Collection(7, 40, 4)
    question, encoded = random_question(7)
    snapshots = [store.snapshot() for store in collection.parts]
    languages = frozenset().union(*(snapshot.languages for snapshot in snapshots))
    recipe = random_recipe(0).changed("redundancy", None)
    request = Request(Query(question, encoded, recipe, "hybrid", languages), Limits(3))
    parts = LocalParts(snapshots, request)
    assert len(search_parts(parts, 4, request)) == 3
    assert parts.calls <= 9
