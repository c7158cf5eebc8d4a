"""What users of `S3Retriever` rely on."""

from __future__ import annotations

import copy
import datetime
import uuid
from pathlib import Path

import pytest
from conftest import TEXTS
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tracers.base import BaseTracer
from pydantic import ValidationError

from langchain_s3_retriever import S3Compressor, S3Retriever
from s3_retriever import HostError, IndexStoreError, InputError, S3Index

QUESTION = "How much holiday do I get?"


def ids(documents):
    return [document.id for document in documents]


def test_from_texts():
    retriever = S3Retriever.from_texts(
        TEXTS.values(), [{"n": n} for n in range(4)], list(TEXTS), k=1, progress=False
    )
    (found,) = retriever.invoke(QUESTION)
    assert found.page_content == "Staff have 28 days of paid leave a year."
    assert found.metadata["s3_document_id"] == "leave"
    assert found.metadata["n"] == 0


def test_from_texts_without_ids_and_metadatas():
    retriever = S3Retriever.from_texts(TEXTS.values(), k=1, progress=False)
    again = S3Retriever.from_texts(TEXTS.values(), k=1, progress=False)
    assert ids(retriever.invoke(QUESTION)) == ids(again.invoke(QUESTION))


@pytest.mark.parametrize(
    "columns", [{"metadatas": [{}]}, {"ids": ["a"]}, {"ids": ["a", "b", "c", "d", "e"]}]
)
def test_columns_of_another_length_are_refused(columns):
    with pytest.raises(InputError, match="as many of each"):
        S3Retriever.from_texts(TEXTS.values(), **columns, progress=False)


def test_an_empty_retriever_finds_nothing():
    assert S3Retriever.from_texts([]).invoke(QUESTION) == []


def test_whole_documents_are_ranked_by_their_evidence(index):
    parents = S3Retriever.from_index(index, k=2, group_by="document")
    first, second = parents.invoke(QUESTION)
    assert (first.id, first.page_content) == ("leave", TEXTS["leave"])
    assert first.metadata["s3_document_id"] == "leave"
    assert first.metadata["s3_evidence"].splitlines()[0] in TEXTS["leave"]
    assert first.metadata["page"] == 1
    assert 0 <= second.metadata["relevance_score"] <= first.metadata["relevance_score"] <= 1
    one = parents.invoke(QUESTION, spans_per_document=1)[0]
    assert one.metadata["s3_evidence"] == "Staff have 28 days of paid leave a year."
    spans = parents.invoke(QUESTION, group_by=None, k=3, spans_per_document=1)
    assert len({span.metadata["s3_document_id"] for span in spans}) == len(spans)


def test_what_a_document_carries(retriever):
    for found in retriever.invoke(QUESTION):
        metadata = found.metadata
        start, end = metadata["s3_start"], metadata["s3_end"]
        assert metadata["start_index"] == start
        name = metadata["s3_document_id"]
        assert TEXTS[name][start:end] == found.page_content
        assert found.id == f"{name}:{start}-{end}"
        assert metadata["relevance_score"] == metadata["s3_relevance"]
        assert 0 <= metadata["relevance_score"] <= 1
        assert set(metadata["s3_sources"].split(", ")) <= {"s3", "sentence", "bm25", "edge", "hop"}
        assert metadata["tags"] == ["staff"]


def test_documents_are_as_the_index_finds_them(retriever):
    spans = retriever.index.search(QUESTION, 3)
    found = retriever.invoke(QUESTION, k=3)
    assert ids(found) == [span.id for span in spans]
    assert [d.metadata["relevance_score"] for d in found] == [span.relevance for span in spans]


def test_a_splitters_start_index_is_added_to():
    whole = "A preface of no interest. " + TEXTS["leave"]
    chunk = Document(TEXTS["leave"], metadata={"start_index": whole.index("Staff")})
    (found,) = S3Retriever.from_documents([chunk], k=1, progress=False).invoke(QUESTION)
    metadata = found.metadata
    assert whole[metadata["start_index"] : metadata["s3_end"]] == found.page_content


def test_documents_are_not_changed(handbook):
    before = copy.deepcopy(handbook)
    retriever = S3Retriever.from_documents(handbook, k=2, progress=False)
    for found in retriever.invoke(QUESTION):
        found.metadata["tags"].append("changed")
        found.metadata.clear()
    assert handbook == before
    assert all(d.metadata["tags"] == ["staff"] for d in retriever.invoke(QUESTION))


def test_values_that_json_has_no_type_for():
    when, number = datetime.date(2024, 2, 29), uuid.UUID(int=7)
    document = Document(
        TEXTS["leave"], metadata={"when": when, "number": number, "at": Path("a/b"), "pair": (1, 2)}
    )
    retriever = S3Retriever.from_documents([document], k=1, progress=False)
    (found,) = retriever.invoke(QUESTION, where={"when": when, "number": number, "pair": (1, 2)})
    assert found.metadata["when"] == "2024-02-29"
    assert found.metadata["number"] == str(number)
    assert Path(found.metadata["at"]) == Path("a/b")
    assert found.metadata["pair"] == [1, 2]
    assert document.metadata["when"] is when


@pytest.mark.parametrize("value", [object(), float("nan"), b"\xff"], ids=["object", "nan", "bytes"])
def test_metadata_that_has_no_json_form_is_refused(value, tmp_path):
    path = tmp_path / "index.s3r"
    document = Document("A text.", metadata={"value": value})
    with pytest.raises(InputError, match="etadata"):
        S3Retriever.from_documents([document], path=path, progress=False)
    assert not path.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_k": 3},
        {"k": 0},
        {"k": True},
        {"k": "3"},
        {"k": 2.0},
        {"mode": "dense"},
        {"token_budget": 0},
        {"min_relevance": 2},
        {"rerank": 0},
        {"rerank": True},
    ],
    ids=str,
)
def test_unknown_and_unusable_settings_are_refused(wrong, retriever, tmp_path):
    with pytest.raises(ValidationError):
        S3Retriever(index=retriever.index, **wrong)
    with pytest.raises(ValidationError):
        S3Retriever.from_texts(["A text."], path=tmp_path / "index.s3r", **wrong)
    # Nothing is left that would be in the way of a second attempt.
    S3Retriever.from_texts(["A text."], path=tmp_path / "index.s3r", progress=False)


def test_an_empty_folder_is_empty_again_after_an_error(tmp_path):
    with pytest.raises(InputError, match="'3'"):
        S3Retriever.from_texts(["This.", "That."], ids=["3", "3"], path=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_at_the_path_already_stays(index_path):
    with pytest.raises(IndexStoreError):
        S3Retriever.from_texts(["A text."], path=index_path)
    assert len(S3Retriever.load(index_path).index) == 4


def test_only_an_index_is_an_index():
    with pytest.raises(ValidationError, match="from_texts"):
        S3Retriever(index="handbook.s3r")


CALLS = [
    ({"k": 1}, 1),
    ({"k": None, "token_budget": 20}, 2),
    ({"k": 1, "token_budget": 20}, 1),
    ({"k": 8, "where": {"page": 2}}, 2),
    ({"where": lambda metadata: metadata["page"] > 4}, 0),
    ({"mode": "bm25", "k": 8}, 0),
    ({"mode": "s3", "k": 5}, 5),
    # Without k, what is not likely to be evidence is left out, whatever the budget.
    ({"k": None, "token_budget": 100_000}, 6),
    ({"k": None, "token_budget": 100_000, "min_relevance": 0.0}, 8),
    ({"min_relevance": 0.99}, 0),
]


@pytest.mark.parametrize(("options", "count"), CALLS)
async def test_options_of_a_call(retriever, options, count):
    found = retriever.invoke(QUESTION, **options)
    assert len(found) == count
    assert await retriever.ainvoke(QUESTION, **options) == found
    assert retriever.bind(**options).invoke(QUESTION) == found


def test_the_second_look_needs_a_language_model(retriever):
    with pytest.raises(HostError, match="is an encoder and cannot rerank"):
        retriever.invoke(QUESTION, rerank=8)
    with pytest.raises(InputError, match="say how many"):
        S3Retriever(index=retriever.index, rerank_host="smollm2").invoke(QUESTION)
    compressor = S3Compressor(rerank=8)
    with pytest.raises(HostError, match="is an encoder and cannot rerank"):
        compressor.compress_documents(retriever.invoke(QUESTION), QUESTION)


def test_overlapping_chunks_bring_a_sentence_once():
    chunks = ["Lunch is at noon. The soup is hot.", "The soup is hot. Tea is free."]
    retriever = S3Retriever.from_texts(chunks, k=4, progress=False)
    found = [document.page_content for document in retriever.invoke("Is the soup hot?")]
    assert sorted(found) == ["Lunch is at noon.", "Tea is free.", "The soup is hot."]
    everywhere = retriever.invoke("Is the soup hot?", unique=False)
    assert [document.page_content for document in everywhere].count("The soup is hot.") == 2


def test_order_of_the_documents(retriever):
    places = [
        (d.metadata["page"], d.metadata["start_index"])
        for d in retriever.invoke(QUESTION, order="document")
    ]
    assert places == sorted(places)


async def test_an_unknown_option_of_a_call_is_refused(retriever):
    with pytest.raises(TypeError, match="top_k"):
        retriever.invoke(QUESTION, top_k=3)
    with pytest.raises(TypeError, match="top_k"):
        await retriever.ainvoke(QUESTION, top_k=3)


@pytest.mark.parametrize("question", ["", " ", "\n\t", "\u00a0\u3000"])
async def test_a_blank_question_finds_nothing(retriever, question):
    assert retriever.invoke(question) == await retriever.ainvoke(question) == []
    assert retriever.batch([question, QUESTION])[1] == retriever.invoke(QUESTION)


@pytest.mark.parametrize("question", [None, 3, ["text"], {"query": "text"}])
def test_a_question_of_another_type_is_refused(retriever, question):
    with pytest.raises(InputError):
        retriever.invoke(question)


def test_filter_is_called_where(retriever):
    with pytest.raises(InputError, match="where="):
        retriever.invoke(QUESTION, filter={"page": 1})
    with pytest.raises(ValidationError, match="where="):
        S3Retriever.from_index(retriever.index, filter={"page": 1})


OWN = {
    "sources": ["wiki", "mail"],
    "source_document_id": "db-42",
    "relevance_score": 0.5,
    "end_index": 7,
    "score": 1,
    "id": "mine",
    "s3": "s3://bucket/key",
    "s3_bucket": "bucket",
}


def test_the_documents_own_metadata_stays():
    page = Document(TEXTS["leave"], metadata=OWN)
    (found,) = S3Retriever.from_documents([page], k=1, progress=False).invoke(QUESTION)
    assert {key: found.metadata[key] for key in OWN} == OWN
    assert 0 < found.metadata["s3_relevance"] <= 1


def test_a_budget_without_k_is_about_four_chunks():
    texts = [
        f"Item {n}: the report on road {n} was heard by the board of harbours and roads, which "
        f"asked for {n} more days."
        for n in range(60)
    ]
    retriever = S3Retriever.from_texts(texts, progress=False)
    found = retriever.invoke("What was heard by the board?", min_relevance=0)
    assert 8 < len(found) < 25
    assert len(retriever.invoke("What was heard by the board?", k=40)) == 40


def test_settings_hold_where_a_call_says_nothing(retriever):
    other = S3Retriever.from_index(
        retriever.index, k=8, mode="s3", where={"page": 1}, token_budget=12, order="document"
    )
    assert ids(other.invoke(QUESTION)) == ["leave:0-40"]
    assert len(other.invoke(QUESTION, token_budget=None)) == 2


async def test_batch(retriever):
    questions = [QUESTION, "Who signs a release?", "My laptop was stolen"]
    found = retriever.batch(questions, k=2)
    assert found == [retriever.invoke(question, k=2) for question in questions]
    assert await retriever.abatch(questions, k=2) == found


async def test_configurable_fields(retriever):
    fields = {
        name: ConfigurableField(id=name)
        for name in ("k", "mode", "token_budget", "where", "order", "unique")
    }
    configurable = retriever.configurable_fields(**fields)
    assert {spec.id for spec in configurable.config_specs} == set(fields)
    config = {"configurable": {"k": 1, "mode": "s3", "where": {"page": 3}}}
    (found,) = configurable.invoke(QUESTION, config=config)
    assert found.metadata["page"] == 3
    assert await configurable.ainvoke(QUESTION, config=config) == [found]
    assert len(configurable.with_config(config).invoke(QUESTION)) == 1
    assert configurable.invoke(QUESTION) == retriever.invoke(QUESTION)


async def test_add_replace_and_delete(handbook):
    retriever = S3Retriever.from_documents(handbook[:1], k=1, progress=False)
    assert retriever.add_documents(handbook[1:2], progress=False) == ["releases"]
    assert await retriever.aadd_documents(
        (document for document in handbook[2:]), ids=["three", "four"], progress=False
    ) == ["three", "four"]
    assert retriever.invoke("stolen laptop")[0].metadata["s3_document_id"] == "three"
    changed = Document("A stolen laptop is replaced within the hour.", id="three")
    retriever.add_documents([changed], progress=False)
    assert retriever.invoke("stolen laptop")[0].page_content == changed.page_content
    assert retriever.delete(["three", "unknown"]) == 1
    assert retriever.delete("four") == 1
    assert await retriever.adelete(["three"]) == 0
    assert retriever.index.ids() == ["leave", "releases"]
    left = retriever.invoke("stolen laptop", k=9)
    assert {d.metadata["s3_document_id"] for d in left} == {"leave", "releases"}


def test_equal_documents_count_once():
    retriever = S3Retriever.from_texts(["The same.", "Another one.", "The same."], progress=False)
    added = retriever.add_documents(
        [Document("Third.", id="3"), Document("Third.", id="3"), Document("The same.")],
        progress=False,
    )
    assert added[:2] == ["3", "3"]
    assert len(retriever.index) == 3


def test_two_contents_for_one_id_are_refused():
    with pytest.raises(InputError, match="'3'"):
        S3Retriever.from_texts(["This.", "That."], ids=["3", "3"], progress=False)


def test_a_reopened_index_finds_the_same(retriever, index_path):
    reopened = S3Retriever.load(str(index_path), k=2)
    assert reopened.invoke(QUESTION) == retriever.invoke(QUESTION, k=2)


def test_an_index_of_the_core_package(retriever):
    index = S3Index.create(host="minilm")
    index.add("Staff have 28 days of paid leave a year.")
    assert len(S3Retriever.from_index(index).invoke(QUESTION)) == 1


def test_mode_bm25_needs_no_host(index_path, monkeypatch):
    monkeypatch.setattr(S3Index, "encoder", None)
    reopened = S3Retriever.load(index_path, mode="bm25")
    assert reopened.invoke("paid leave")[0].metadata["s3_document_id"] == "leave"


def test_repr_does_not_show_the_index(retriever):
    assert "index" not in repr(retriever)


class _Runs(BaseTracer):
    def _persist_run(self, run):
        self.run = run


def test_traces_name_the_retriever(retriever):
    runs = _Runs()
    retriever.invoke(QUESTION, config={"callbacks": [runs]})
    assert runs.run.name == "S3Retriever"
    metadata = runs.run.extra["metadata"]
    assert metadata["ls_retriever_name"] == "s3"
    assert metadata["ls_embedding_model"] == "minilm"


def test_in_a_chain(retriever):
    chain = retriever | RunnableLambda(lambda found: [d.page_content for d in found])
    assert chain.invoke(QUESTION)[0] == "Staff have 28 days of paid leave a year."
