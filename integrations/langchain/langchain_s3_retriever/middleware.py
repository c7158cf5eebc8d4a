"""`EvidenceMiddleware`: puts evidence into an agent's model calls (LangChain 1.x)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.retrievers import BaseRetriever

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
except ImportError as error:
    raise ImportError(
        "EvidenceMiddleware needs LangChain 1.x: pip install 'langchain-s3-retriever[agents]'"
    ) from error

from langchain_s3_retriever.documents import cited
from s3_retriever import InputError

PROMPT = "Answer from this evidence; say so if it does not hold the answer.\n\n{evidence}"


class EvidenceMiddleware(AgentMiddleware):
    """Retrieves evidence for the user's last message and adds it to the system message.

    Give it to `langchain.agents.create_agent(model, middleware=[EvidenceMiddleware(retriever)])`.
    The evidence goes into each model call, not into the conversation, which does not grow by it.
    A message without text, or one for which nothing is found, leaves the call as it is.

    Args:
        retriever: An `S3Retriever`, or any retriever.
        prompt: What is added to the system message; `{evidence}` becomes the documents' texts, one
            in a line, each with its id or number.

    Raises:
        InputError: `retriever` is of another type, or the prompt lacks `{evidence}`.
    """

    def __init__(self, retriever: BaseRetriever, *, prompt: str = PROMPT) -> None:
        super().__init__()
        if not isinstance(retriever, BaseRetriever):
            raise InputError(f"retriever must be a retriever, not {type(retriever).__name__}.")
        if not isinstance(prompt, str) or "{evidence}" not in prompt:
            raise InputError("prompt must be a text with {evidence} where the evidence goes.")
        self.retriever = retriever
        self.prompt = prompt

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Call the model with the evidence."""
        question = _question(request)
        found = self.retriever.invoke(question) if question else []
        return handler(self._with_evidence(request, found))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Call the model with the evidence."""
        question = _question(request)
        found = await self.retriever.ainvoke(question) if question else []
        return await handler(self._with_evidence(request, found))

    def _with_evidence(
        self, request: ModelRequest[Any], found: list[Document]
    ) -> ModelRequest[Any]:
        if not found:
            return request
        evidence = self.prompt.replace("{evidence}", cited(found))
        before = request.system_message.content if request.system_message else ""
        if isinstance(before, str):
            content: Any = f"{before}\n\n{evidence}" if before else evidence
        else:
            content = [*before, {"type": "text", "text": evidence}]
        return request.override(system_message=SystemMessage(content=content))


def _question(request: ModelRequest[Any]) -> str:
    """The text of the user's last message."""
    for message in reversed(request.messages):
        if isinstance(message, HumanMessage):
            return message.text.strip()
    return ""
