"""Random Unicode as documents and questions: offsets hold, and what is deleted is gone.

`S3_FAULT_EXAMPLES` is the number of examples, 120 where it is not set; then they are the same in
every run.
"""

from __future__ import annotations

import os

import pytest
from helpers.segments import PIECES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3_retriever import Codebook, Document, Host, InputError, S3Index

EXAMPLES = int(os.environ.get("S3_FAULT_EXAMPLES", "0"))
WORDS = ["captain", "paints", "boats", "Boats.", "the", "ledger", "harbour?", "seven"]
CHARACTERS = st.text(max_size=40)
MIXED = st.lists(
    st.one_of(st.sampled_from(PIECES), st.sampled_from(WORDS).map(lambda w: f" {w}"), CHARACTERS),
    max_size=25,
).map("".join)
METADATA = st.dictionaries(
    st.one_of(st.just("title"), st.text(max_size=5)),
    st.one_of(st.text(max_size=10), st.integers(), st.none(), st.booleans()),
    max_size=3,
)


@pytest.fixture(scope="module")
def host(tiny_bert):
    return Host.load(str(tiny_bert), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def codebook(tiny_codebook):
    return Codebook.load(tiny_codebook)


@st.composite
def cases(draw):
    """Documents, and a question that may be a piece of one."""
    texts = draw(st.lists(MIXED, min_size=1, max_size=4))
    documents = [
        Document(text, f"{number}{draw(st.text(max_size=3))}", draw(METADATA))
        for number, text in enumerate(texts)
    ]
    if draw(st.booleans()):
        text = draw(st.sampled_from(texts))
        start = draw(st.integers(0, len(text)))
        return documents, text[start : start + 60]
    return documents, draw(st.one_of(MIXED, st.text(st.characters(), max_size=20)))


def check(index, question, texts, *modes):
    """Search in some modes: every span is where it says it is. Gives what the last one finds."""
    spans = []
    for mode in modes:
        spans = index.search(question, 100, mode=mode, unique=False)
        for span in spans:
            document = texts[span.document_id]
            assert document.text[span.start : span.end] == span.text
            assert span.text == span.text.strip() != ""
            assert span.metadata == dict(document.metadata)
    return {(span.document_id, span.start, span.end): round(span.score, 9) for span in spans}


@settings(
    max_examples=EXAMPLES or 120,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(case=cases(), data=st.data())
def test_any_text_is_found_where_it_is_until_it_is_deleted(host, codebook, case, data):
    documents, question = case
    texts = {document.id: document for document in documents}
    with S3Index.create(host=host, codebook=codebook) as index:
        index.add(documents, progress=False)
        assert index.ids() == list(texts)
        if not question.strip() or any("\ud800" <= c <= "\udfff" for c in question):
            with pytest.raises(InputError):
                index.search(question)
            return
        found = check(index, question, texts, "s3", "hybrid", "bm25")
        for span in index.search(question, 1):
            assert index.explain(question, span).span == span
        gone = data.draw(st.sampled_from(documents))
        index.delete(gone.id)
        rest = {name: document for name, document in texts.items() if name != gone.id}
        left = check(index, question, rest, "hybrid", "bm25")
        assert left.keys() == {place for place in found if place[0] != gone.id}
        index.add(gone, progress=False)
        assert set(index.ids()) == set(texts)
        assert check(index, question, texts, "bm25") == found
        index.verify(progress=False)
