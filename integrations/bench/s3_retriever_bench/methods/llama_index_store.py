"""Dense retrieval with LlamaIndex's VectorStoreIndex, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from pydantic import PrivateAttr

from s3_retriever.document import Document
from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever_bench.methods.base import Searcher
from s3_retriever_bench.methods.embedder import Embedder
from s3_retriever_bench.methods.passages import chunks, cut_all
from s3_retriever_bench.methods.ranked import RankedPassages

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class LlamaIndexChunks:
    """Chunks in a VectorStoreIndex."""

    embedder: Embedder
    tokenizer: OffsetTokenizer

    def prepare(self, documents: Sequence[Document]) -> Searcher:
        """See `Method`."""
        passages = cut_all(documents, chunks, self.tokenizer)
        ranker = _Ranker([passage.text for passage in passages], self.embedder)
        return RankedPassages(passages, ranker, self.tokenizer)


class _Ranker:
    def __init__(self, texts: Sequence[str], embedder: Embedder) -> None:
        nodes = [TextNode(id_=str(number), text=text) for number, text in enumerate(texts)]
        self._index: Any = VectorStoreIndex(nodes, embed_model=_Embedding(embedder))
        self._bytes = _FLOAT_BYTES * embedder.vectors(texts).size

    def rank(self, question: str, count: int) -> Sequence[int]:
        found = self._index.as_retriever(similarity_top_k=count).retrieve(question)
        return [int(hit.node.node_id) for hit in found]

    def size(self) -> int:
        return self._bytes


class _Embedding(BaseEmbedding):
    _embedder: Embedder = PrivateAttr()

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self._embedder = embedder

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._embedder.vectors(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embedder.embed_query(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)
