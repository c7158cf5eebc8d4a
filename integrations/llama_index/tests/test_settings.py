"""Settings of `S3Retriever`: what they do, how they are checked and changed."""

from __future__ import annotations

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from s3_retriever import HostError, InputError

from llama_index.retrievers.s3_attention import S3NodePostprocessor, S3Retriever

QUESTION = "How much holiday do I get?"


def year(value, operator="=="):
    return MetadataFilters(filters=[MetadataFilter(key="year", value=value, operator=operator)])


def test_settings_take_effect(nodes):
    question = "When are releases tested and shipped?"
    retriever = S3Retriever.from_defaults(nodes=nodes, token_budget=24)
    limited = retriever.with_settings(token_budget=None, similarity_top_k=5)
    assert len(limited.retrieve(question)) == 5
    assert retriever.with_settings(min_relevance=1).retrieve(question) == []
    texts = [item.text for item in retriever.retrieve(question)]
    assert len(texts) == 3
    in_order = retriever.with_settings(order="document").retrieve(question)
    assert sorted(item.text for item in in_order) == sorted(texts)
    starts = [(item.node.source_node.node_id, item.node.start_char_idx) for item in in_order]
    assert starts == sorted(starts, key=lambda at: ([n.node_id for n in nodes].index(at[0]), at[1]))
    retriever.similarity_top_k = 1
    assert [item.text for item in retriever.retrieve(question)] == texts[:1]
    lexical = retriever.with_settings(mode="bm25").retrieve(question)[0]
    assert lexical.node.metadata["s3_sources"] == "bm25"


def test_the_second_look_needs_a_language_model(nodes, shared):
    retriever = shared.with_settings(rerank=8)
    with pytest.raises(HostError, match="is an encoder and cannot rerank"):
        retriever.retrieve(QUESTION)
    with pytest.raises(HostError, match="is an encoder and cannot rerank"):
        S3NodePostprocessor(rerank=8).postprocess_nodes(shared.retrieve(QUESTION), query_str="x")
    with pytest.raises(InputError, match="say how many"):
        shared.with_settings(rerank_host="smollm2").retrieve(QUESTION)


def test_overlapping_chunks_bring_a_sentence_once():
    texts = ["Lunch is at noon. The soup is hot.", "The soup is hot. Tea is free."]
    # With nothing to tell them apart, older versions of the framework take nodes for one.
    nodes = [TextNode(text=text, metadata={"page": page}) for page, text in enumerate(texts)]
    retriever = S3Retriever.from_defaults(nodes=nodes)
    once = [item.text for item in retriever.retrieve("Is the soup hot?")]
    assert sorted(once) == ["Lunch is at noon.", "Tea is free.", "The soup is hot."]
    everywhere = retriever.with_settings(unique=False).retrieve("Is the soup hot?")
    assert [item.text for item in everywhere].count("The soup is hot.") == 2


def test_settings_are_checked(nodes, shared):
    for name, value in (
        ("similarity_top_k", -1),
        ("similarity_top_k", 2.0),
        ("similarity_top_k", True),
        ("token_budget", 0),
        ("rerank", 0),
        ("rerank", True),
        ("mode", "dense"),
        ("order", "best"),
        ("unique", "often"),
        ("filters", year("x", "in")),
        ("top_k", 3),
    ):
        with pytest.raises(ValueError, match=name):
            shared.with_settings(**{name: value})
    retriever = shared.with_settings()
    retriever.token_budget = "many"
    with pytest.raises(ValueError, match="token_budget"):
        retriever.retrieve(QUESTION)


def test_with_settings_shares_the_index_and_leaves_the_retriever(shared):
    other = shared.with_settings(similarity_top_k=1, filters=year(2024))
    assert other.index is shared.index
    assert (shared.similarity_top_k, shared.filters) == (None, None)
    assert [item.metadata["year"] for item in other.retrieve("rules")] == [2024]
    assert other.with_settings(filters=None).filters is None


def test_an_empty_question_says_so(shared):
    with pytest.raises(ValueError, match="question is empty"):
        shared.retrieve(" ")


def test_callbacks_are_told(nodes):
    handler = LlamaDebugHandler(print_trace_on_end=False)
    retriever = S3Retriever.from_defaults(nodes=nodes, callback_manager=CallbackManager([handler]))
    retriever.retrieve(QUESTION)
    assert len(handler.get_event_pairs(CBEventType.RETRIEVE)) == 1
