"""Dense retrieval with FAISS, through LangChain's vector store."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from s3_retriever.document import Document
from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever_bench.methods.base import Searcher
from s3_retriever_bench.methods.embedder import Embedder
from s3_retriever_bench.methods.passages import chunks, cut_all, sentences
from s3_retriever_bench.methods.ranked import RankedPassages

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class DenseSentences:
    """Sentences in a FAISS store, embedded with or without the document's title."""

    embedder: Embedder
    tokenizer: OffsetTokenizer
    titled: bool

    def prepare(self, documents: Sequence[Document]) -> Searcher:
        """See `Method`."""
        passages = cut_all(documents, sentences, self.tokenizer)
        texts = [passage.titled() if self.titled else passage.text for passage in passages]
        return RankedPassages(passages, FaissRanker(texts, self.embedder))


@dataclass(frozen=True, slots=True)
class DenseChunks:
    """Chunks in a FAISS store."""

    embedder: Embedder
    tokenizer: OffsetTokenizer

    def prepare(self, documents: Sequence[Document]) -> Searcher:
        """See `Method`."""
        passages = cut_all(documents, chunks, self.tokenizer)
        ranker = FaissRanker([passage.text for passage in passages], self.embedder)
        return RankedPassages(passages, ranker, self.tokenizer)


class FaissRanker:
    """An exact FAISS index of texts behind LangChain's interface."""

    def __init__(self, texts: Sequence[str], embedder: Embedder) -> None:
        self._store: Any = _langchain_store().from_texts(
            list(texts), embedder, metadatas=[{"number": i} for i in range(len(texts))]
        )

    def rank(self, question: str, count: int) -> Sequence[int]:
        """See `Ranker`."""
        return list(self.distances(question, count))

    def distances(self, question: str, count: int) -> dict[int, float]:
        """Squared distances of the nearest texts by number, the nearest first."""
        found = self._store.similarity_search_with_score(question, k=count)
        return {document.metadata["number"]: float(distance) for document, distance in found}

    def size(self) -> int:
        """See `Ranker`."""
        return _FLOAT_BYTES * int(self._store.index.ntotal) * int(self._store.index.d)


def _langchain_store() -> Any:
    with warnings.catch_warnings():
        # The package is no longer developed, says importing it. Its FAISS store has no successor
        # and is what most pipelines use.
        warnings.simplefilter("ignore", DeprecationWarning)
        from langchain_community.vectorstores import FAISS

    return FAISS
