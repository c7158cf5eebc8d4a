"""S3 in query engines. The LLM is LlamaIndex's mock, which answers with the prompt it was given."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import SummaryIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever

from llama_index.retrievers.s3_attention import S3NodePostprocessor

QUESTION = "How much holiday do I get?"


@pytest.mark.parametrize("way", ["query", "aquery"])
def test_a_query_engine_answers_from_the_spans(shared, way):
    engine = RetrieverQueryEngine.from_args(shared.with_settings(similarity_top_k=1), llm=MockLLM())
    answer = engine.query(QUESTION) if way == "query" else asyncio.run(engine.aquery(QUESTION))
    text = "Staff have 28 days of paid leave a year."
    assert f"topic: leave\nyear: 2021\n\n{text}\n" in answer.response
    assert f"Query: {QUESTION}" in answer.response
    assert "s3_sources" not in answer.response
    assert [item.text for item in answer.source_nodes] == [text]


def test_a_query_engine_with_the_postprocessor_reads_spans_only(nodes):
    engine = SummaryIndex(nodes).as_query_engine(
        llm=MockLLM(), node_postprocessors=[S3NodePostprocessor(similarity_top_k=1)]
    )
    answer = engine.query(QUESTION)
    assert "Staff have 28 days of paid leave a year." in answer.response
    assert "soup only" not in answer.response
    assert [item.node.ref_doc_id for item in answer.source_nodes] == ["leave"]


def test_the_postprocessor_takes_spans_of_the_retriever(shared):
    engine = RetrieverQueryEngine.from_args(
        shared, llm=MockLLM(), node_postprocessors=[S3NodePostprocessor(similarity_top_k=1)]
    )
    (item,) = engine.query(QUESTION).source_nodes
    assert item.text == "Staff have 28 days of paid leave a year."
    assert item.node.ref_doc_id == "leave:0-40"
    assert item.metadata["ref_doc_id"] == "leave"


def test_it_fuses_with_other_retrievers(shared):
    lexical = shared.with_settings(mode="bm25")
    fusion = QueryFusionRetriever(
        [shared, lexical], llm=MockLLM(), num_queries=1, similarity_top_k=4, use_async=False,
        mode="reciprocal_rerank",
    )  # fmt: skip
    assert len({item.node_id for item in fusion.retrieve("days of leave")}) >= 2
