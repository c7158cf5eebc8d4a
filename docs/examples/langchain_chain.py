"""A chain that answers from evidence, in LangChain's expression language."""

# ruff: noqa: T201 - an example prints.

from __future__ import annotations

from langchain_core.documents import Document
from langchain_core.language_models import ParrotFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_handbook import HANDBOOK
from langchain_s3_retriever import S3Retriever

PROMPT = ChatPromptTemplate.from_template(
    "Answer the question from the evidence and name the page.\n{evidence}\nQuestion: {question}"
)


def listed(documents: list[Document]) -> str:
    """One line for each span, with the page it comes from."""
    return "\n".join(f"- {d.page_content} [{d.metadata['source']}]" for d in documents)


def main() -> None:
    """Ask one question."""
    retriever = S3Retriever.from_documents(HANDBOOK, k=3)
    # Any chat model. LangChain's parrot answers with the prompt, showing what a model reads.
    model = ParrotFakeChatModel()
    chain = (
        {"evidence": retriever | listed, "question": RunnablePassthrough()}
        | PROMPT
        | model
        | StrOutputParser()
    )
    print(chain.invoke("How much holiday do I get?"))


if __name__ == "__main__":
    main()
