"""`S3Retriever` is made from nodes, a docstore, an index of LlamaIndex or one of S3."""

from __future__ import annotations

import pytest
from llama_index.core import SummaryIndex
from llama_index.core.schema import ObjectType, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from s3_retriever import Document as S3Document
from s3_retriever import IndexStoreError, S3Index

from llama_index.retrievers.s3_attention import S3Retriever

QUESTION = "How much holiday do I get?"


def found(retriever, question=QUESTION):
    return [(item.node_id, item.score) for item in retriever.retrieve(question)]


def test_nodes_docstore_and_index_are_sources_alike(nodes):
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes)
    expected = found(S3Retriever.from_defaults(nodes=nodes))
    assert expected
    assert found(S3Retriever.from_defaults(docstore=docstore)) == expected
    assert found(S3Retriever.from_defaults(SummaryIndex(nodes))) == expected


def test_an_s3_index_is_used_as_it_is():
    index = S3Index.create()
    index.add(S3Document("Staff have 28 days of leave.", id="leave", metadata={"year": 2024}))
    item = S3Retriever.from_defaults(index).retrieve("leave")[0]
    assert item.node.metadata["s3_sources"] == "s3, bm25, sentence"
    assert item.node.metadata["year"] == 2024
    assert item.node.ref_doc_id == "leave"
    assert item.node.source_node.node_type == ObjectType.DOCUMENT
    with pytest.raises(ValueError, match="has its host"):
        S3Retriever.from_defaults(index, recipe="paper")


def test_exactly_one_source(nodes):
    docstore = SimpleDocumentStore()
    for sources in (
        {},
        {"nodes": nodes, "docstore": docstore},
        {"index": SummaryIndex([]), "nodes": []},
    ):
        with pytest.raises(ValueError, match="exactly one of index, nodes and docstore"):
            S3Retriever.from_defaults(**sources)


def test_unknown_arguments_are_refused(nodes):
    with pytest.raises(TypeError, match="top_k"):
        S3Retriever.from_defaults(nodes=nodes, top_k=3)


def test_the_index_may_have_a_folder_of_its_own(nodes, tmp_path):
    retriever = S3Retriever.from_defaults(nodes=nodes, path=tmp_path / "own.s3r")
    retriever.index.close()
    with S3Index.open(tmp_path / "own.s3r") as index:
        assert found(S3Retriever.from_defaults(index)) == found(S3Retriever(index))
    with pytest.raises(IndexStoreError, match="already"):
        S3Retriever.from_defaults(nodes=nodes, path=tmp_path / "own.s3r")


def test_an_error_leaves_no_index_behind(nodes, tmp_path):
    wrong = {
        "mode": {"nodes": nodes, "mode": "dense"},
        "was already added": {"nodes": [nodes[0], nodes[0]]},
        "JSON cannot hold": {"nodes": [TextNode(text="A text.", metadata={"thing": object()})]},
    }
    for message, arguments in wrong.items():
        for path in (tmp_path / "own.s3r", tmp_path):
            with pytest.raises(ValueError, match=message):
                S3Retriever.from_defaults(**arguments, path=path)
            assert list(tmp_path.iterdir()) == []


def test_what_is_at_the_path_already_stays(nodes, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(IndexStoreError, match="other files"):
        S3Retriever.from_defaults(nodes=nodes, path=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
