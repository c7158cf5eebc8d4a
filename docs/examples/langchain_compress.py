"""S3 next to another retriever in an ensemble, and behind it as a compressor."""

# ruff: noqa: T201 - an example prints.

from __future__ import annotations

from langchain_classic.retrievers import ContextualCompressionRetriever, EnsembleRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_handbook import HANDBOOK
from langchain_minilm import MiniLMEmbeddings
from langchain_s3_retriever import S3Compressor, S3Retriever


def main() -> None:
    """Ask one question."""
    question = "How do I get reimbursed for a ticket?"
    store = InMemoryVectorStore.from_documents(HANDBOOK, MiniLMEmbeddings())
    ensemble = EnsembleRetriever(
        retrievers=[
            store.as_retriever(search_kwargs={"k": 3}),
            S3Retriever.from_documents(HANDBOOK, k=3),
        ]
    )
    print("Ensemble:")
    for document in ensemble.invoke(question):
        print(f"- {document.page_content}")

    compressed = ContextualCompressionRetriever(
        base_compressor=S3Compressor(token_budget=25), base_retriever=ensemble
    )
    print("\nCompressed to 25 tokens:")
    for document in compressed.invoke(question):
        start, end = document.metadata["s3_start"], document.metadata["s3_end"]
        print(f"- {document.page_content} [{document.metadata['source']}, {start}-{end}]")


if __name__ == "__main__":
    main()
