"""`S3NodePostprocessor`: evidence from nodes that another retriever found."""

from __future__ import annotations

import asyncio
from datetime import date

import pytest
import s3_retriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index.retrievers.s3_attention import S3NodePostprocessor

QUESTION = "How much holiday do I get?"


@pytest.fixture
def retrieved(nodes):
    return [NodeWithScore(node=node, score=0.5) for node in nodes]


def test_nodes_become_spans(retrieved):
    spans = S3NodePostprocessor(similarity_top_k=2).postprocess_nodes(retrieved, query_str=QUESTION)
    assert spans[0].text == "Staff have 28 days of paid leave a year."
    texts = {item.node_id: item.text for item in retrieved}
    for span in spans:
        node = span.node
        source = texts[node.source_node.node_id]
        assert source[node.start_char_idx : node.end_char_idx] == node.text
        assert "s3_sources" in node.excluded_llm_metadata_keys
    assert len({span.node_id for span in spans}) == len(spans) == 2
    assert [item.score for item in retrieved] == [0.5] * 4


def test_metadata_is_a_copy_whatever_it_holds(retrieved):
    opaque, day = object(), date(2024, 2, 29)
    retrieved[0].node.metadata |= {"opaque": opaque, "day": day}
    postprocessor = S3NodePostprocessor(similarity_top_k=1)
    (span,) = postprocessor.postprocess_nodes(retrieved, query_str=QUESTION)
    assert type(span.metadata["opaque"]) is type(opaque)
    assert span.metadata["day"] == day
    assert span.metadata["ref_doc_id"] == "book-0"
    span.metadata["tags"].append("changed")
    assert retrieved[0].metadata["tags"] == ["all", "leave"]


def test_overlapping_nodes_bring_a_sentence_once(retrieved):
    overlap = TextNode(text="A preface. Staff have 28 days of paid leave a year.")
    again = TextNode(text=retrieved[0].text)
    nodes = [*retrieved, NodeWithScore(node=overlap), NodeWithScore(node=again)]
    spans = S3NodePostprocessor(min_relevance=0).postprocess_nodes(nodes, query_str=QUESTION)
    texts = [span.text for span in spans]
    assert "A preface." in texts
    assert len(set(texts)) == len(texts)


def test_settings_take_effect(retrieved):
    question = {"query_str": "When are releases tested and shipped?"}
    budget = S3NodePostprocessor(token_budget=24).postprocess_nodes(retrieved, **question)
    assert len(budget) == 3
    ordered = S3NodePostprocessor(token_budget=24, order="document")
    places = [
        (["leave", "releases", "laptops", "canteen"].index(item.node.ref_doc_id), item.node.text)
        for item in ordered.postprocess_nodes(retrieved, **question)
    ]
    assert [place for place, _ in places] == sorted(place for place, _ in places)
    lexical = S3NodePostprocessor(mode="bm25").postprocess_nodes(retrieved, **question)
    assert {item.metadata["s3_sources"] for item in lexical} == {"bm25"}
    assert S3NodePostprocessor(similarity_top_k=0).postprocess_nodes(retrieved, **question) == []


def test_without_a_question_it_says_what_is_missing(retrieved):
    with pytest.raises(ValueError, match="needs the question; pass query_bundle or query_str"):
        S3NodePostprocessor().postprocess_nodes(retrieved)


def test_without_nodes_no_model_is_loaded(monkeypatch):
    monkeypatch.setattr(s3_retriever, "Compressor", None)
    postprocessor = S3NodePostprocessor()
    assert postprocessor.postprocess_nodes([], query_str=QUESTION) == []
    assert asyncio.run(postprocessor.apostprocess_nodes([], QueryBundle(QUESTION))) == []


def test_nodes_without_text_are_dropped(retrieved):
    empty = NodeWithScore(node=TextNode(text=""), score=1.0)
    postprocessor = S3NodePostprocessor()
    assert postprocessor.postprocess_nodes([empty], query_str=QUESTION) == []
    assert postprocessor.postprocess_nodes([empty, *retrieved], query_str=QUESTION)


def test_async_gives_the_same(retrieved):
    postprocessor = S3NodePostprocessor()
    bundle = QueryBundle(QUESTION)
    spans = asyncio.run(postprocessor.apostprocess_nodes(retrieved, bundle))
    assert spans == postprocessor.postprocess_nodes(retrieved, bundle)


def test_the_compressor_is_made_once_and_may_be_given(retrieved, monkeypatch):
    compressor = s3_retriever.Compressor()
    given = S3NodePostprocessor.from_compressor(compressor, similarity_top_k=1)
    own = S3NodePostprocessor(similarity_top_k=1)
    expected = own.postprocess_nodes(retrieved, query_str=QUESTION)
    monkeypatch.setattr(s3_retriever, "Compressor", None)
    assert own.postprocess_nodes(retrieved, query_str=QUESTION) == expected
    assert given.postprocess_nodes(retrieved, query_str=QUESTION) == expected


def test_it_is_a_component_that_can_be_written_as_json():
    made = S3NodePostprocessor(token_budget=256, mode="s3", order="document")
    assert made.class_name() == "S3NodePostprocessor"
    again = S3NodePostprocessor.from_json(made.to_json())
    assert again.to_dict() == made.to_dict()


def test_settings_are_checked():
    for settings in (
        {"token_budgte": 1},
        {"token_budget": 0},
        {"similarity_top_k": -1},
        {"mode": "dense"},
        {"order": "best"},
    ):
        with pytest.raises(ValueError, match=next(iter(settings))):
            S3NodePostprocessor(**settings)
