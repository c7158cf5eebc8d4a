"""What spans take along of the text around them; ranked by words alone, without a host."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from helpers.segments import add as add_chunks

from s3_retriever import Document, Recipe
from s3_retriever.features import Layout
from s3_retriever.index import Store
from s3_retriever.search import Limits, admitted, rank, select
from s3_retriever.search.documents import select_documents

RECIPE = Recipe(taps={})
STORY = (
    "Ada built a boat in spring. She sailed it to Crete. The weather was fine. "
    "It rained on nobody.\n\nBob keeps bees. His honey is dark. Nobody else in the village has "
    "ever tasted such dark honey from the hills beyond the river where the heather grows in late "
    "summer before the first frost. Boats need honey too."
)


def found(question, *texts, **limits):
    store = Store.create(None, {})
    with store.append(Layout({})) as writer:
        for number, text in enumerate(texts or [STORY]):
            starts = [match.start() for match in re.finditer(r"\S+", text)]
            add_chunks(writer, Document(text, f"d{number}"), np.array(starts, dtype=np.uint32), {})
    snapshot = store.snapshot()
    ranking = rank(snapshot, question, RECIPE, None, "bm25", admitted(snapshot, None))
    spans = select(ranking, RECIPE, Limits(**limits))
    for span in spans:
        text = (texts or [STORY])[int(span.document_id[1:])]
        assert text[span.start : span.end] == span.text
    return spans, ranking


def texts(question, *documents, **limits):
    return [span.text for span in found(question, *documents, **limits)[0]]


def test_a_sentence_that_points_back_takes_the_one_before():
    assert texts("Crete", context="sentence") == ["She sailed it to Crete."]
    assert texts("Crete", context="passage") == [
        "Ada built a boat in spring. She sailed it to Crete."
    ]
    assert texts("bees", context="passage") == ["Bob keeps bees."]
    # Where both do not fit, the sentence comes alone.
    assert texts("Crete", context="passage", token_budget=8) == ["She sailed it to Crete."]


def test_spans_with_little_between_them_become_one():
    assert texts("Ada weather", context="passage") == [
        "Ada built a boat in spring. She sailed it to Crete. The weather was fine."
    ]
    assert texts("Ada weather", context="sentence", order="document") == [
        "Ada built a boat in spring.",
        "The weather was fine.",
    ]
    assert len(texts("bees boats", context="passage")) == 2  # much lies between
    # Documents stay apart.
    assert texts("cat dog", "A cat.", "The dog.", context="section") == ["A cat.", "The dog."]


def test_a_section_is_a_paragraph():
    first, second = STORY.split("\n\n")
    assert texts("Crete", context="section") == [first]
    assert texts("bees", context="section") == [second]
    lines = "One cat. Two cats.\nA dog. Two birds."
    assert texts("dog", lines, context="section") == ["A dog. Two birds."]
    long = "Word " * 60 + "end. A rare cat. " + "Other " * 70 + "end."
    assert texts("cat", long, context="section") == [long[long.index("A rare") :]]


def test_neighbours_are_taken_on_both_sides():
    long = "Word " * 70 + "end. Two dogs. A rare cat. One bird. " + "Other " * 70 + "end."
    assert texts("cat", long, context="neighbours") == ["Two dogs. A rare cat. One bird."]
    # Paragraphs are no limit: who answers begins a new one.
    assert texts("cat", "A cat?\n\nA dog.", context="neighbours") == ["A cat?\n\nA dog."]


@pytest.mark.parametrize("context", ["passage", "neighbours", "section"])
@pytest.mark.parametrize("budget", [5, 12, 30, 60, 100])
def test_wide_spans_keep_the_budget_and_never_overlap(context, budget):
    for order in ("score", "document"):
        spans, _ = found(
            "boat honey weather", STORY, STORY[::-1], context=context, token_budget=budget,
            order=order,
        )  # fmt: skip
        assert sum(span.tokens for span in spans) <= budget
        ranges = sorted((span.document_id, span.start, span.end) for span in spans)
        for before, after in pairwise(ranges):
            assert before[0] != after[0] or before[2] <= after[1]


def test_documents_have_spans_of_the_form_asked_for():
    _, ranking = found("Crete honey")
    (result,) = select_documents(ranking, RECIPE, Limits(context="section"))
    assert [span.text for span in result.spans] == [STORY]
