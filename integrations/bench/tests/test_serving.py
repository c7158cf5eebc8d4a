"""What `s3r bench serve` takes for a result of no committed state."""

from __future__ import annotations

import pytest

from s3_retriever import Span
from s3_retriever_bench.serving.serve import _Load

KNOWN = {"a": "The captain sails."}


def span(document_id: str, text: str, **metadata) -> Span:
    return Span(text, 1.0, 1.0, document_id, 0, len(text), ("bm25",), metadata, 3)


@pytest.mark.parametrize(
    ("spans", "state", "wrong"),
    [
        ([span("a", "The captain")], False, ""),
        ([span("a", "The baker")], False, "not what its document says"),
        ([span("state/0", "x", version=3), span("state/1", "x", version=3)], True, ""),
        ([span("state/0", "x", version=3), span("state/1", "x", version=4)], True, "versions"),
        ([span("state/0", "x", version=1)], True, "2 to 4 were committed"),
        ([span("state/0", "x", version=5)], False, "2 to 4 were committed"),
        ([span("a", "The captain")], True, "versions"),
        ([], True, "versions"),
    ],
)
def test_results_of_no_committed_state(spans, state, wrong):
    load = _Load("http://127.0.0.1:9", ["x"], KNOWN)
    load._begun = 4
    found = load._wrong(spans, least=2, state=state)
    assert wrong in found
    assert bool(found) == bool(wrong)
