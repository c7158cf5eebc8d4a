"""A LlamaIndex query engine whose LLM reads evidence instead of whole chunks.

The embedding model and the LLM are LlamaIndex's mocks, to run offline; replace them with any of
LlamaIndex's. S3 needs only the argument `node_postprocessors`. Install from a clone:

    pip install ".[minilm]" ./integrations/llama_index
"""

# ruff: noqa: T201

from __future__ import annotations

from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.retrievers.s3_attention import S3NodePostprocessor

HANDBOOK = [
    "Staff have 28 days of paid leave a year. Ask your manager two weeks ahead. Leave that is not "
    "taken by March is lost. Public holidays come on top.",
    "Every release is tested for two days. The head of quality signs it off. Nothing is shipped on "
    "a Friday. Hot fixes need two signatures.",
    "Laptops are replaced every three years. Report a stolen one to the help desk at once. Do not "
    "install software from the web.",
]


def main() -> None:
    """Ask a vector store, with and without the postprocessor."""
    documents = [Document(text=text) for text in HANDBOOK]
    index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(embed_dim=8))
    question = "My computer was stolen. What now?"
    for postprocessors in ([], [S3NodePostprocessor(token_budget=30)]):
        engine = index.as_query_engine(
            llm=MockLLM(), similarity_top_k=3, node_postprocessors=postprocessors
        )
        response = engine.query(question)
        words = sum(len(item.text.split()) for item in response.source_nodes)
        print(f"{len(response.source_nodes)} nodes, {words} words")
    for item in response.source_nodes:
        print(f"- {item.text}")


if __name__ == "__main__":
    main()
