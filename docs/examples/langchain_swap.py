"""A chain over a vector store, and the same chain over S3: only one line differs."""

# ruff: noqa: T201 - an example prints.

from __future__ import annotations

from langchain_core.documents import Document
from langchain_core.language_models import ParrotFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_handbook import HANDBOOK
from langchain_minilm import MiniLMEmbeddings
from langchain_s3_retriever import S3Retriever

PROMPT = ChatPromptTemplate.from_template("{evidence}\nQuestion: {question}")


def listed(documents: list[Document]) -> str:
    """One line for each document."""
    return "\n".join(f"- {document.page_content}" for document in documents)


def chain_over(retriever: BaseRetriever) -> Runnable[str, str]:
    """The chain, which works with any retriever."""
    # Any chat model. LangChain's parrot answers with the prompt, showing what a model reads.
    model = ParrotFakeChatModel()
    return (
        {"evidence": retriever | listed, "question": RunnablePassthrough()}
        | PROMPT
        | model
        | StrOutputParser()
    )


def main() -> None:
    """Ask both the same question."""
    question = "What do I do when I have a fever?"

    store = InMemoryVectorStore.from_documents(HANDBOOK, MiniLMEmbeddings())
    retriever: BaseRetriever = store.as_retriever(search_kwargs={"k": 3})
    print("Vector store:", chain_over(retriever).invoke(question), sep="\n")

    # About half the tokens that three pages hold; 512 by default.
    retriever = S3Retriever.from_documents(HANDBOOK, token_budget=50)
    print("\nS3:", chain_over(retriever).invoke(question), sep="\n")


if __name__ == "__main__":
    main()
