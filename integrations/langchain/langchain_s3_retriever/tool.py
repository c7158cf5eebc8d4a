"""`create_evidence_tool`: an agent asks for evidence and gets it with citations."""

from __future__ import annotations

from langchain_core.callbacks import Callbacks
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import StructuredTool
from pydantic import BaseModel, Field

from langchain_s3_retriever.documents import cited
from langchain_s3_retriever.settings import is_blank
from s3_retriever import InputError

DESCRIPTION = (
    "Find the sentences of the documents that answer a question. Returns them word for word, one "
    "in a line, each after its citation, such as [handbook:0-40]; cite what you use in that form. "
    "Ask again in other words, or one part at a time, if they are not enough."
)
_NOTHING = "Nothing found."


class _Question(BaseModel):
    question: str = Field(description="A full question in natural language.")


def create_evidence_tool(
    retriever: BaseRetriever,
    name: str = "search_documents",
    description: str = DESCRIPTION,
) -> StructuredTool:
    """Make a tool for an agent that finds evidence and returns it with citations.

    The model reads a line for each span, which begins with the id of the span in brackets. The
    artifact of the tool's message is the list of the documents themselves, by whose `id` an
    application resolves what the model cites.

    Args:
        retriever: An `S3Retriever`, or any retriever. Its own settings limit what is found.
        name: The tool's name, for the model.
        description: What the tool is for; say here what the documents are about.

    Raises:
        InputError: `retriever` is of another type.
    """
    if not isinstance(retriever, BaseRetriever):
        raise InputError(f"retriever must be a retriever, not {type(retriever).__name__}.")

    def search(question: str, callbacks: Callbacks = None) -> tuple[str, list[Document]]:
        if is_blank(question):
            return _NOTHING, []
        found = retriever.invoke(question, config={"callbacks": callbacks})
        return cited(found) or _NOTHING, found

    async def asearch(question: str, callbacks: Callbacks = None) -> tuple[str, list[Document]]:
        if is_blank(question):
            return _NOTHING, []
        found = await retriever.ainvoke(question, config={"callbacks": callbacks})
        return cited(found) or _NOTHING, found

    return StructuredTool(
        name=name,
        description=description,
        func=search,
        coroutine=asearch,
        args_schema=_Question,
        response_format="content_and_artifact",
    )
