"""The package's compressor behind a vector store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3_retriever.document import Document
from s3_retriever.engine import Compressor
from s3_retriever_bench.methods.base import Searcher
from s3_retriever_bench.methods.embedder import Embedder
from s3_retriever_bench.methods.faiss_store import FaissRanker
from s3_retriever_bench.methods.passages import Passage, chunks, cut_all, text_bytes

_CHUNKS = 20


@dataclass(frozen=True, slots=True)
class Compressed:
    """`Compressor.compress` on the 20 best chunks of a FAISS store.

    A chunk that was scanned for one question is remembered for the next, as in use.
    """

    compressor: Compressor
    embedder: Embedder

    def prepare(self, documents: Sequence[Document]) -> Searcher:
        """See `Method`."""
        passages = cut_all(documents, chunks, self.compressor.encoder.host.tokenizer)
        ranker = FaissRanker([passage.text for passage in passages], self.embedder)
        return _Searcher(passages, ranker, self.compressor)


@dataclass(frozen=True, slots=True)
class _Searcher:
    passages: Sequence[Passage]
    ranker: FaissRanker
    compressor: Compressor

    def search(self, question: str, budget: int) -> Sequence[Passage]:
        found = self.ranker.rank(question, min(_CHUNKS, len(self.passages)))
        documents = [
            Document(passage.text, str(number), {"title": passage.title})
            for number, passage in ((number, self.passages[number]) for number in found)
        ]
        spans = self.compressor.compress(question, documents, token_budget=budget)
        return [
            Passage(
                chunk.document_id,
                chunk.start + span.start,
                chunk.start + span.end,
                span.tokens,
                span.text,
                chunk.title,
            )
            for span in spans
            for chunk in (self.passages[int(span.document_id)],)
        ]

    def size(self) -> int:
        return text_bytes(self.passages) + self.ranker.size()

    def close(self) -> None:
        """Nothing is open."""
