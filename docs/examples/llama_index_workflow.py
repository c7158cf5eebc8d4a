"""A LlamaIndex workflow: find evidence, answer from it, check what the answer cites.

The LLM is LlamaIndex's mock; replace it with any. Install from a clone:

    pip install ".[minilm]" ./integrations/llama_index
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
import re

from llama_index.core import Document
from llama_index.core.llms import LLM, CompletionResponse, MockLLM
from llama_index.core.schema import NodeWithScore
from llama_index.core.workflow import Event, StartEvent, StopEvent, Workflow, step
from llama_index.retrievers.s3_attention import S3Retriever

HANDBOOK = {
    "leave": "Staff have 28 days of paid leave a year. Ask your manager two weeks ahead.",
    "laptops": "Laptops are replaced every three years. Report a stolen one to the help desk.",
}
PROMPT = "Answer from the evidence and cite the ids in brackets.\n{evidence}\nQuestion: {question}"


class Found(Event):
    """Evidence for a question."""

    question: str
    evidence: list[NodeWithScore]


class Answered(Event):
    """An answer and the evidence it was given."""

    answer: str
    evidence: list[NodeWithScore]


class Ask(Workflow):
    """Retrieve, answer, check."""

    def __init__(self, retriever: S3Retriever, llm: LLM) -> None:
        super().__init__(timeout=60)
        self.retriever = retriever
        self.llm = llm

    @step
    async def retrieve(self, start: StartEvent) -> Found | StopEvent:
        """Find evidence; without any, no model is asked."""
        evidence = await self.retriever.aretrieve(start.question)
        if not evidence:
            return StopEvent(result="The handbook does not say.")
        return Found(question=start.question, evidence=evidence)

    @step
    async def answer(self, found: Found) -> Answered:
        """Let the model answer from the evidence."""
        lines = "\n".join(f"[{item.node_id}] {item.text}" for item in found.evidence)
        prompt = PROMPT.format(evidence=lines, question=found.question)
        answer = await self.llm.acomplete(prompt)
        return Answered(answer=answer.text, evidence=found.evidence)

    @step
    async def check(self, answered: Answered) -> StopEvent:
        """Keep an answer only if what it cites is evidence that was found."""
        cited = set(re.findall(r"\[([^]]+)\]", answered.answer))
        known = {item.node_id for item in answered.evidence}
        if not cited or cited - known:
            return StopEvent(result="The answer cites nothing that was found.")
        return StopEvent(result=answered.answer)


class Quoting(MockLLM):
    """In the place of an LLM: quotes the first line of the evidence."""

    async def acomplete(self, prompt: str, **_: object) -> CompletionResponse:
        """Quote."""
        citation, _, text = prompt.splitlines()[1].partition(" ")
        return CompletionResponse(text=f"{text} {citation}")


async def main() -> None:
    """Ask two questions, the second of which the handbook does not answer."""
    documents = [Document(text=text, doc_id=name) for name, text in HANDBOOK.items()]
    retriever = S3Retriever.from_defaults(nodes=documents, min_relevance=0.2)
    workflow = Ask(retriever, Quoting())
    for question in ("My computer was stolen. What now?", "Who won the cup final in 1966?"):
        print(question)
        print(await workflow.run(question=question))


if __name__ == "__main__":
    asyncio.run(main())
