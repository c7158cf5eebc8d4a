"""What is known to go wrong with LlamaIndex's BM25 retriever does not go wrong here."""

from __future__ import annotations

import pytest
from llama_index.core import SummaryIndex
from llama_index.core.schema import Document, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from llama_index.retrievers.s3_attention import S3Retriever

QUESTION = "How much holiday do I get?"


def topic(name):
    return MetadataFilters(filters=[MetadataFilter(key="topic", value=name)])


def test_no_setting_is_lost_at_reload(nodes, tmp_path):
    settings = {
        "similarity_top_k": 7,
        "mode": "s3",
        "token_budget": 99,
        "filters": topic("leave"),
        "order": "document",
    }
    S3Retriever.from_defaults(nodes=nodes, **settings).persist(tmp_path)
    again = S3Retriever.from_persist_dir(tmp_path)
    assert {name: getattr(again, name) for name in settings} == settings


def test_nodes_that_are_filtered_out_are_never_returned(nodes):
    retriever = S3Retriever.from_defaults(
        nodes=nodes, filters=topic("canteen"), similarity_top_k=10
    )
    items = retriever.retrieve(QUESTION)
    assert {item.metadata["topic"] for item in items} == {"canteen"}
    assert all(item.score is not None for item in items)


def test_filters_that_nothing_passes_find_nothing(nodes):
    assert S3Retriever.from_defaults(nodes=nodes, filters=topic("x")).retrieve(QUESTION) == []


def test_top_k_may_exceed_the_number_of_nodes(nodes):
    retriever = S3Retriever.from_defaults(nodes=nodes[:1], similarity_top_k=100)
    assert len(retriever.retrieve(QUESTION)) == 2
    assert retriever.similarity_top_k == 100
    retriever.add_nodes(nodes[1:])
    assert len(retriever.retrieve(QUESTION)) > 2


def test_an_empty_docstore_warns():
    for source in ({"docstore": SimpleDocumentStore()}, {"index": SummaryIndex([])}):
        with pytest.warns(UserWarning, match="pass nodes="):
            assert S3Retriever.from_defaults(**source).retrieve(QUESTION) == []


def test_no_nodes_find_nothing(nodes):
    retriever = S3Retriever.from_defaults(nodes=[])
    assert retriever.retrieve(QUESTION) == []
    retriever.add_nodes(nodes)
    assert retriever.retrieve(QUESTION)


def test_nodes_without_text_find_nothing(nodes, tmp_path):
    empty = [TextNode(text=""), TextNode(text=" \n"), Document(text="")]
    assert S3Retriever.from_defaults(nodes=empty).retrieve(QUESTION) == []
    retriever = S3Retriever.from_defaults(nodes=[*empty, *nodes])
    retriever.persist(tmp_path)
    assert S3Retriever.from_persist_dir(tmp_path).retrieve(QUESTION)[0].text.startswith("Staff")


def test_a_top_k_of_zero_finds_nothing(nodes):
    assert S3Retriever.from_defaults(nodes=nodes, similarity_top_k=0).retrieve(QUESTION) == []


def test_a_docstore_is_followed(nodes):
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes[1:])
    retriever = S3Retriever.from_defaults(docstore=docstore)
    assert retriever.refresh() == 0
    docstore.add_documents(nodes[:1])
    docstore.delete_document("laptops")
    docstore.add_documents([TextNode(id_="canteen", text="The canteen is closed.")])
    assert retriever.refresh() == 3
    assert sorted(retriever.index.ids()) == ["canteen", "leave", "releases"]
    assert retriever.retrieve(QUESTION)[0].node.ref_doc_id == "leave"
    texts = [item.text for item in retriever.retrieve("Where can I eat at the canteen?")]
    assert "The canteen is closed." in texts


def test_a_docstore_is_followed_after_reload(nodes, tmp_path):
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes)
    S3Retriever.from_defaults(docstore=docstore).persist(tmp_path)
    docstore.delete_document("leave")
    retriever = S3Retriever.from_persist_dir(tmp_path, docstore=docstore)
    retriever.refresh()
    assert sorted(retriever.index.ids()) == ["canteen", "laptops", "releases"]
    assert retriever.refresh() == 0
    with pytest.raises(ValueError, match="no docstore to follow"):
        S3Retriever.from_persist_dir(tmp_path).refresh()


def test_filters_may_differ_by_query(nodes):
    retriever = S3Retriever.from_defaults(nodes=nodes, min_relevance=0)
    for name in ("leave", "canteen", "leave"):
        items = retriever.with_settings(filters=topic(name)).retrieve(QUESTION)
        assert {item.metadata["topic"] for item in items} == {name}
    retriever.filters = topic("laptops")
    assert {item.metadata["topic"] for item in retriever.retrieve(QUESTION)} == {"laptops"}


def test_scores_fall(nodes):
    scores = [item.score for item in S3Retriever.from_defaults(nodes=nodes).retrieve(QUESTION)]
    assert scores == sorted(scores, reverse=True)
