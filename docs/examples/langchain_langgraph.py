"""An agent as a graph of LangGraph: the model asks for evidence, then answers and cites it."""

# ruff: noqa: T201 - an example prints.

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_handbook import HANDBOOK
from langchain_s3_retriever import S3Retriever, create_evidence_tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


class Clerk(BaseChatModel):
    """In the place of any chat model that calls tools: asks once, then quotes what it got."""

    @property
    def _llm_type(self) -> str:
        return "clerk"

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Any:
        """Remember the tool's name."""
        return self.bind(tool=tools[0].name, **options)

    def _generate(
        self, messages: list[BaseMessage], *_: Any, tool: str = "", **__: Any
    ) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            citation, _, text = last.text.partition("\n")[0].partition(" ")
            answer = AIMessage(f"The handbook says: {text} {citation}")
        else:
            call = {"name": tool, "args": {"question": last.text}, "id": "call-1"}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


def main() -> None:
    """Ask one question and look up what the answer cites."""
    tool = create_evidence_tool(S3Retriever.from_documents(HANDBOOK, k=2))
    model = Clerk().bind_tools([tool])

    def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", think)
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")

    question = ("user", "Who books my train?")
    messages = graph.compile().invoke({"messages": [question]})["messages"]
    evidence = {
        document.id: document
        for message in messages
        if isinstance(message, ToolMessage)
        for document in message.artifact
    }
    print(messages[-1].text)
    for citation in re.findall(r"\[([^]]+)\]", messages[-1].text):
        metadata = evidence[citation].metadata
        print(f"{citation}: {metadata['source']}, relevance {metadata['s3_relevance']:.2f}")


if __name__ == "__main__":
    main()
