"""S3 in what LangChain and LangGraph offer for retrievers."""

from __future__ import annotations

import json

import pytest
from langchain_classic.retrievers import (
    ContextualCompressionRetriever,
    EnsembleRetriever,
    MultiQueryRetriever,
)
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage
from langchain_core.tools import create_retriever_tool
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from langchain_s3_retriever import S3Compressor, S3Retriever

QUESTION = "How much holiday do I get?"


async def test_in_a_contextual_compression_retriever(retriever):
    compressor = S3Compressor(k=2)
    both = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=retriever)
    found = both.invoke(QUESTION)
    assert found[0].page_content == "Staff have 28 days of paid leave a year."
    assert await both.ainvoke(QUESTION) == found


async def test_in_an_ensemble(retriever):
    words = S3Retriever.from_index(retriever.index, mode="bm25")
    ensemble = EnsembleRetriever(retrievers=[retriever, words])
    found = ensemble.invoke("How many days of leave?")
    assert found[0].page_content == "Staff have 28 days of paid leave a year."
    assert len({d.page_content for d in found}) == len(found)
    assert await ensemble.ainvoke("How many days of leave?") == found


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_a_model_that_writes_a_blank_line_does_not_end_the_retrieval(retriever, blank):
    model = FakeListChatModel(responses=[f"How much leave?\n{blank}\nHow many days off?"])
    found = MultiQueryRetriever.from_llm(retriever, model).invoke("holiday")
    assert "Staff have 28 days of paid leave a year." in [d.page_content for d in found]


async def test_as_a_tool_of_an_agent(retriever):
    tool = create_retriever_tool(
        retriever, "handbook", "The handbook.", response_format="content_and_artifact"
    )
    call = {"name": "handbook", "args": {"query": QUESTION}, "id": "1", "type": "tool_call"}
    message = tool.invoke(call)
    assert "Staff have 28 days of paid leave a year." in message.content
    assert message.artifact == retriever.invoke(QUESTION)
    assert (await tool.ainvoke(call)).content == message.content
    assert tool.invoke({"query": " "}) == ""


def test_as_a_tool_node_of_langgraph(retriever):
    tool = create_retriever_tool(retriever, "handbook", "The handbook.")
    call = {"name": "handbook", "args": {"query": QUESTION}, "id": "1"}
    graph = StateGraph(MessagesState).add_node(ToolNode([tool])).set_entry_point("tools").compile()
    (*_, answer) = graph.invoke({"messages": [AIMessage("", tool_calls=[call])]})["messages"]
    assert "Staff have 28 days of paid leave a year." in answer.content


@pytest.mark.filterwarnings("ignore:The function `loads`")
def test_documents_are_serialised_and_the_retriever_says_that_it_is_not(retriever):
    found = retriever.invoke(QUESTION)
    assert loads(dumps(found), allowed_objects="core") == found
    assert retriever.to_json()["type"] == "not_implemented"
    assert json.loads(dumps(retriever))["id"][-1] == "S3Retriever"


def test_order_and_metadata_survive_a_pipeline_of_compressors(retriever):
    pipeline = DocumentCompressorPipeline(
        transformers=[S3Compressor(k=3), S3Compressor(k=2, order="document")]
    )
    found = pipeline.compress_documents(retriever.invoke(QUESTION), QUESTION)
    assert len(found) == 2
    assert {d.id for d in found} <= {d.id for d in retriever.invoke(QUESTION)}
    assert all(d.metadata["tags"] == ["staff"] for d in found)
