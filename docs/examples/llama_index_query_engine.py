"""A LlamaIndex query engine that answers from the spans S3 finds.

The LLM is LlamaIndex's mock. It runs offline and answers with its own prompt, which shows what an
LLM would read; replace it with any of LlamaIndex's. Install from a clone:

    pip install ".[minilm]" ./integrations/llama_index
"""

# ruff: noqa: T201

from __future__ import annotations

from llama_index.core import Document
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.retrievers.s3_attention import S3Retriever

HANDBOOK = {
    "leave": "Staff have 28 days of paid leave a year. Ask your manager two weeks ahead.",
    "releases": "Every release is tested for two days. The head of quality signs it off. "
    "Nothing is shipped on a Friday.",
    "laptops": "Laptops are replaced every three years. Report a stolen one to the help desk.",
}


def main() -> None:
    """Index whole documents, ask, and show the answer with its sources."""
    documents = [
        Document(text=text, doc_id=name, metadata={"page": name}) for name, text in HANDBOOK.items()
    ]
    retriever = S3Retriever.from_defaults(nodes=documents, similarity_top_k=2)
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM())
    response = engine.query("My computer was stolen. What now?")
    print(response)
    print()
    for item in response.source_nodes:
        span = item.node
        print(f"{span.ref_doc_id}[{span.start_char_idx}:{span.end_char_idx}] {span.text}")


if __name__ == "__main__":
    main()
