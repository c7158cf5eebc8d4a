"""What users of `S3Compressor` rely on."""

from __future__ import annotations

import copy

import pytest
from conftest import TEXTS
from langchain_core.documents import Document
from langchain_core.runnables import RunnablePassthrough
from pydantic import ValidationError

import s3_retriever
from langchain_s3_retriever import S3Compressor
from s3_retriever import InputError

QUESTION = "How much holiday do I get?"


@pytest.fixture(scope="module")
def compressor():
    return S3Compressor(k=2)


def test_evidence_of_given_documents(compressor, handbook):
    before = copy.deepcopy(handbook)
    handbook[0].metadata["opaque"] = opaque = object()
    found = compressor.compress_documents(handbook, QUESTION)
    assert found[0].page_content == "Staff have 28 days of paid leave a year."
    assert len(found) == 2
    metadata = found[0].metadata
    assert metadata["page"] == 1
    # Copies of values that have no JSON form come through.
    assert type(metadata["opaque"]) is type(opaque)
    assert metadata["s3_document_id"] == "leave"
    assert found[0].id == "leave:0-40"
    assert TEXTS["leave"][metadata["start_index"] : metadata["s3_end"]] == found[0].page_content
    assert metadata["relevance_score"] == metadata["s3_relevance"]
    assert set(metadata["s3_sources"].split(", ")) <= {"s3", "sentence", "bm25", "edge", "hop"}
    metadata["tags"].append("changed")
    del handbook[0].metadata["opaque"]
    assert handbook == before


async def test_async_finds_the_same(compressor, handbook):
    found = compressor.compress_documents(handbook, QUESTION)
    assert await compressor.acompress_documents(handbook, QUESTION) == found


def test_documents_without_id_get_a_stable_one(compressor):
    document = Document(TEXTS["leave"])
    (first, *_) = compressor.compress_documents([document], QUESTION)
    (again, *_) = S3Compressor(k=2).compress_documents([document], QUESTION)
    assert first.id == again.id
    assert first.id.startswith(first.metadata["s3_document_id"])


def test_start_index_of_a_chunk_is_added_to(compressor):
    chunk = Document(TEXTS["leave"], id="leave", metadata={"start_index": 100})
    found = compressor.compress_documents([chunk], QUESTION)[0]
    assert (found.metadata["start_index"], found.metadata["s3_end"]) == (100, 140)


@pytest.mark.parametrize("start", ["12", None, True, 1.5, -1])
def test_another_start_index_stays_as_it_is(compressor, start):
    chunk = Document(TEXTS["leave"], id="leave", metadata={"start_index": start})
    metadata = compressor.compress_documents([chunk], QUESTION)[0].metadata
    assert (metadata["start_index"], metadata["s3_start"]) == (start, 0)


OWN = {
    "sources": ["wiki"],
    "source_document_id": "db-42",
    "relevance_score": 0.5,
    "end_index": 7,
    "s3": "s3://bucket/key",
}


def test_the_documents_own_metadata_stays(compressor):
    page = Document(TEXTS["leave"], metadata=OWN)
    metadata = compressor.compress_documents([page], QUESTION)[0].metadata
    assert {key: metadata[key] for key in OWN} == OWN


def test_a_relevance_of_the_retrievers_is_replaced(retriever):
    found = retriever.invoke(QUESTION, k=3)
    for document in S3Compressor(k=2).compress_documents(found, "Who eats soup?"):
        assert document.metadata["relevance_score"] == document.metadata["s3_relevance"]


@pytest.mark.parametrize(
    "documents",
    [
        [Document(TEXTS["leave"], id="x"), Document(TEXTS["canteen"], id="x")],
        [Document(TEXTS["leave"]), Document(TEXTS["canteen"])],
        [Document(text, metadata={"source_document_id": "x"}) for text in TEXTS.values()],
    ],
)
def test_two_places_have_two_ids(compressor, documents):
    found = S3Compressor(k=20).compress_documents(documents, QUESTION)
    assert len({document.id for document in found}) == len(found) > 2


def test_one_text_at_two_places_has_two_ids(compressor):
    pages = [Document(TEXTS["leave"], metadata={"page": page}) for page in (1, 2)]
    ids = [compressor.compress_documents([page], QUESTION)[0].id for page in pages]
    assert len(set(ids)) == 2
    assert ids == [compressor.compress_documents([page], QUESTION)[0].id for page in pages]


def test_a_document_that_is_part_of_another_counts(compressor):
    part = Document("Soup is served", metadata={"page": 1})
    whole = Document("Soup is served on Friday. Tea is free.", metadata={"page": 2})
    inside = Document("Tea", metadata={"page": 3})
    found = S3Compressor(k=9).compress_documents([part, whole, inside], "Is there soup or tea?")
    assert {document.metadata["page"] for document in found} == {1, 2, 3}


@pytest.mark.parametrize("question", ["", " \n"])
def test_a_blank_question_finds_nothing(compressor, handbook, question):
    assert compressor.compress_documents(handbook, question) == []


@pytest.mark.parametrize("documents", [None, "text", ["text"], [None], {"a": 1}, 3])
def test_documents_of_another_type_are_refused(compressor, documents):
    with pytest.raises(InputError, match="document"):
        compressor.compress_documents(documents, QUESTION)


def test_spans_of_the_retriever_keep_their_place(compressor, retriever):
    spans = retriever.invoke(QUESTION, k=8)
    for found in compressor.compress_documents(spans, QUESTION):
        assert found.id in {span.id for span in spans}


def test_nothing_comes_twice(handbook):
    sentence = Document("Staff have 28 days of paid leave a year.")
    overlap = Document("An overlapping chunk. Staff have 28 days of paid leave a year.")
    documents = [sentence, handbook[0], handbook[0], Document(TEXTS["leave"]), overlap]
    found = S3Compressor(k=20).compress_documents(documents, QUESTION)
    assert len({d.page_content for d in found}) == len(found) == 3


def test_two_texts_with_one_id_are_both_read(compressor):
    documents = [Document(TEXTS["canteen"], id="x"), Document(TEXTS["leave"], id="x")]
    found = compressor.compress_documents(documents, QUESTION)
    assert found[0].page_content == "Staff have 28 days of paid leave a year."


@pytest.mark.parametrize("documents", [[], [Document("")], [Document(" \n")]])
def test_no_text_no_evidence(compressor, documents):
    assert compressor.compress_documents(documents, QUESTION) == []


async def test_nothing_to_compress_loads_nothing(monkeypatch):
    monkeypatch.setattr(s3_retriever, "Compressor", None)
    compressor = S3Compressor()
    assert compressor.compress_documents([], QUESTION) == []
    assert await compressor.acompress_documents([], QUESTION) == []


def test_budget_and_order(handbook):
    found = S3Compressor(token_budget=30, order="document").compress_documents(handbook, QUESTION)
    places = [(d.metadata["page"], d.metadata["start_index"]) for d in found]
    assert places == sorted(places)
    assert 2 <= len(found) <= 4
    words = S3Compressor(mode="bm25").compress_documents(handbook, "soup")
    assert [d.page_content for d in words] == ["On Fridays there is soup only."]


@pytest.mark.parametrize("wrong", [{"top_n": 3}, {"k": 0}, {"mode": "dense"}])
def test_unknown_and_unusable_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        S3Compressor(**wrong)


async def test_as_a_step_of_a_chain(compressor, retriever, handbook):
    step = compressor.as_runnable()
    given = {"query": QUESTION, "documents": handbook}
    found = compressor.compress_documents(handbook, QUESTION)
    assert step.invoke(given) == found
    assert await step.ainvoke(given) == found
    for wrong in (QUESTION, {"query": QUESTION}, None):
        with pytest.raises(InputError, match="'query' and 'documents'"):
            step.invoke(wrong)
    assert step.batch([given, given]) == [found, found]
    chain = {"query": RunnablePassthrough(), "documents": retriever} | step
    assert chain.invoke(QUESTION)[0].page_content == found[0].page_content
    assert await chain.ainvoke(QUESTION) == chain.invoke(QUESTION)


def test_a_document_that_comes_again_is_not_scanned_again(monkeypatch, handbook):
    from s3_retriever import Compressor

    compressor = S3Compressor(k=2)
    first = compressor.compress_documents(handbook, QUESTION)
    inner: Compressor = compressor._compressor
    scanned = []
    forward = inner.encoder.host.forward
    monkeypatch.setattr(
        inner.encoder.host, "forward", lambda batch: (scanned.append(len(batch)), forward(batch))
    )
    assert compressor.compress_documents(handbook, QUESTION) == first
    assert scanned == []
    compressor.compress_documents(handbook, "Who cleans the kitchen?")
    assert scanned == [1]  # the new question


def test_relevance_has_a_floor_that_can_be_set(handbook):
    some = S3Compressor(token_budget=1_000).compress_documents(handbook, QUESTION)
    every = S3Compressor(token_budget=1_000, min_relevance=0).compress_documents(handbook, QUESTION)
    none = S3Compressor(token_budget=1_000, min_relevance=1).compress_documents(handbook, QUESTION)
    assert 0 == len(none) < len(some) < len(every)
