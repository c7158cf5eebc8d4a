"""Arguments of another type are taken as what they mean, or refused in one sentence."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from llama_index.core.schema import Document, NodeWithScore, TextNode
from s3_retriever import InputError

from llama_index.retrievers.s3_attention import S3NodePostprocessor, S3Retriever

QUESTION = "How much holiday do I get?"
TEXT = "Staff have 28 days of paid leave."


@pytest.mark.parametrize(
    "nodes",
    [
        TextNode(text=TEXT),
        Document(text=TEXT),
        NodeWithScore(node=TextNode(text=TEXT), score=1.0),
        (TextNode(text=TEXT),),
        iter([TextNode(text=TEXT)]),
        [TextNode(text=TEXT, metadata={"page": np.int64(3), "share": np.float32(0.5)})],
    ],
    ids=["node", "document", "retrieved", "tuple", "iterator", "numpy"],
)
def test_one_node_in_any_form(nodes):
    assert S3Retriever.from_defaults(nodes=nodes).retrieve(QUESTION)[0].text == TEXT


@pytest.mark.parametrize(
    "nodes",
    [TEXT, b"text", 3, True, {"a": 1}, [TEXT], [None], [3], [[TextNode(text=TEXT, id_="a")]]],
    ids=repr,
)
def test_what_is_not_a_node_is_refused(shared, nodes):
    for call in (
        lambda: S3Retriever.from_defaults(nodes=nodes),
        lambda: shared.add_nodes(nodes),
        lambda: S3NodePostprocessor().postprocess_nodes(nodes, query_str=QUESTION),
    ):
        with pytest.raises(InputError, match=r"[Nn]ode") as refused:
            call()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "source", ["handbook", 3, [], object(), b"x"], ids=["path", "number", "list", "object", "bytes"]
)
def test_what_is_not_an_index_is_refused(source):
    for call in (
        lambda: S3Retriever(source),
        lambda: S3Retriever.from_defaults(source),
        lambda: S3Retriever.from_defaults(docstore=source),
    ):
        with pytest.raises(InputError, match="must be"):
            call()


@pytest.mark.parametrize("path", [3, b"x", [], True, "", "a\0b"], ids=repr)
def test_what_is_not_a_path_is_refused(shared, path):
    for call in (
        lambda: shared.persist(path),
        lambda: S3Retriever.from_persist_dir(path),
        lambda: S3Retriever.from_defaults(nodes=[], path=path),
    ):
        with pytest.raises(InputError, match="path"):
            call()


@pytest.mark.parametrize("k", [np.int64(2), 2, np.array(2)[()], 10**30])
def test_numbers_of_other_libraries(shared, k):
    items = shared.with_settings(similarity_top_k=k).retrieve(QUESTION)
    assert len(items) == min(k, len(items))
    assert S3NodePostprocessor(similarity_top_k=k).postprocess_nodes(items, query_str=QUESTION)


@pytest.mark.parametrize("k", [True, np.bool_(True), "2", 2.0, -1, float("nan")], ids=repr)
def test_what_is_not_a_number_is_refused(shared, k):
    for name in ("similarity_top_k", "token_budget"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            shared.with_settings(**{name: k})
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            S3NodePostprocessor(**{name: k})


def test_copies_and_pickles_of_a_retriever_on_disk(nodes, tmp_path):
    retriever = S3Retriever.from_defaults(
        nodes=nodes, path=tmp_path / "handbook.s3r", similarity_top_k=1
    )
    found = [item.node_id for item in retriever.retrieve(QUESTION)]
    for again in (copy.deepcopy(retriever), pickle.loads(pickle.dumps(retriever))):
        assert [item.node_id for item in again.retrieve(QUESTION)] == found
    items = retriever.retrieve(QUESTION)
    assert pickle.loads(pickle.dumps(items)) == items


def test_copies_pickles_and_dicts_of_a_postprocessor_after_use(nodes):
    items = [NodeWithScore(node=node, score=1.0) for node in nodes]
    post = S3NodePostprocessor(similarity_top_k=1)
    found = post.postprocess_nodes(items, query_str=QUESTION)
    for again in (
        copy.deepcopy(post),
        pickle.loads(pickle.dumps(post)),
        S3NodePostprocessor.from_dict(post.to_dict()),
    ):
        assert again.postprocess_nodes(items, query_str=QUESTION) == found
