"""LlamaIndex's CitationQueryEngine over S3: every numbered source is one span.

The LLM is LlamaIndex's mock, which answers with the end of its prompt; replace it with any.
Install from a clone:

    pip install ".[minilm]" ./integrations/llama_index
"""

# ruff: noqa: T201

from __future__ import annotations

from llama_index.core import Document
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import CitationQueryEngine
from llama_index.retrievers.s3_attention import S3Retriever

HANDBOOK = {
    "leave": "Staff have 28 days of paid leave a year. Ask your manager two weeks ahead.",
    "laptops": "Laptops are replaced every three years. Report a stolen one to the help desk.",
}


def main() -> None:
    """Ask, and show the sources that the model reads and cites by number."""
    documents = [Document(text=text, doc_id=name) for name, text in HANDBOOK.items()]
    retriever = S3Retriever.from_defaults(nodes=documents, similarity_top_k=2)
    engine = CitationQueryEngine(retriever, llm=MockLLM())
    response = engine.query("My computer was stolen. What now?")
    print(str(response).partition("------\n")[2])
    for number, source in enumerate(response.source_nodes, 1):
        print(f"[{number}] is from {source.node.ref_doc_id}")


if __name__ == "__main__":
    main()
