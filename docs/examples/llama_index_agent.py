"""A LlamaIndex agent that asks S3 for evidence and cites the spans it got.

The LLM is LlamaIndex's mock with a script: it asks once, then quotes. Replace it with any LLM that
calls functions. Install from a clone:

    pip install ".[minilm]" ./integrations/llama_index
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from llama_index.core import Document
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.tools import FunctionTool
from llama_index.retrievers.s3_attention import S3Retriever

HANDBOOK = {
    "leave": "Staff have 28 days of paid leave a year. Ask your manager two weeks ahead.",
    "laptops": "Laptops are replaced every three years. Report a stolen one to the help desk.",
}


def evidence_tool(retriever: S3Retriever) -> FunctionTool:
    """A tool that finds evidence; a line for each span, with its id to cite."""

    async def search_handbook(question: str) -> str:
        """Find the sentences of the handbook that answer a question; cite the ids in brackets."""
        found = await retriever.aretrieve(question)
        return "\n".join(f"[{item.node_id}] {item.text}" for item in found) or "Nothing found."

    return FunctionTool.from_defaults(async_fn=search_handbook)


def scripted(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
    """What the model says: it calls the tool with the question, then quotes the first line."""
    last = messages[-1]
    if last.role == MessageRole.TOOL:
        citation, _, text = (last.content or "").partition("\n")[0].partition(" ")
        return ChatMessage(role="assistant", content=f"{text} {citation}")
    call = ToolCallBlock(
        tool_call_id="1", tool_name="search_handbook", tool_kwargs={"question": last.content}
    )
    return ChatMessage(role="assistant", blocks=[call])


async def main() -> None:
    """Ask one question; show what the tool returned and what the agent answered."""
    documents = [Document(text=text, doc_id=name) for name, text in HANDBOOK.items()]
    retriever = S3Retriever.from_defaults(nodes=documents, similarity_top_k=2)
    agent = FunctionAgent(
        tools=[evidence_tool(retriever)],
        llm=MockFunctionCallingLLM(response_generator=scripted),
        system_prompt="Answer from the handbook and cite it.",
    )
    run = agent.run("My computer was stolen. What now?")
    async for event in run.stream_events():
        if isinstance(event, ToolCallResult):
            print(event.tool_output)
    print()
    print(await run)


if __name__ == "__main__":
    asyncio.run(main())
