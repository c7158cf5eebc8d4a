"""BM25 and dense retrieval over the same sentences, fused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import Document
from s3_retriever.recipe import Recipe
from s3_retriever.search.fusion import standardise
from s3_retriever_bench.methods.base import Searcher
from s3_retriever_bench.methods.embedder import Embedder
from s3_retriever_bench.methods.faiss_store import FaissRanker
from s3_retriever_bench.methods.filling import fill
from s3_retriever_bench.methods.indexed import IndexSearcher, TokensOnly
from s3_retriever_bench.methods.passages import Passage, cut_all, sentences

# Candidates that each of the two contributes: all sentences of a context but for a large corpus.
_DEPTH = 1_000
# The constant of LangChain's EnsembleRetriever.
_C = 60

Scores = NDArray[np.float64]
Fuse = Callable[[Scores, Scores], Scores]


def reciprocal_ranks(lexical: Scores, dense: Scores) -> Scores:
    """Reciprocal rank fusion by the formula of LangChain's EnsembleRetriever, equal weights."""
    return _reciprocal(lexical) + _reciprocal(dense)


def z_scores(lexical: Scores, dense: Scores) -> Scores:
    """The sum of both scores, each standardised over the candidates."""
    every = np.ones(len(lexical), dtype=np.bool_)
    return standardise(lexical, every) + standardise(dense, every)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """BM25 as in `S3Index` and FAISS over title and sentence, fused.

    Candidates are the 1,000 best sentences of each; one that is not among those of a ranking has
    its lowest score there (with BM25 0, as it shares no word with the question).
    """

    encoder: TokensOnly
    recipe: Recipe
    embedder: Embedder
    fuse: Fuse

    def prepare(self, documents: Sequence[Document]) -> Searcher:
        """See `Method`."""
        lexical = IndexSearcher(self.encoder, self.recipe, "bm25", documents)
        passages = cut_all(documents, sentences, self.encoder.host.tokenizer)
        dense = FaissRanker([passage.titled() for passage in passages], self.embedder)
        return _Searcher(passages, lexical, dense, self.fuse)


class _Searcher:
    def __init__(
        self, passages: Sequence[Passage], lexical: IndexSearcher, dense: FaissRanker, fuse: Fuse
    ) -> None:
        self._passages = passages
        self._lexical = lexical
        self._dense = dense
        self._fuse = fuse
        self._numbers = {(p.document_id, p.start): i for i, p in enumerate(passages)}

    def search(self, question: str, budget: int) -> Sequence[Passage]:
        lexical = {
            self._numbers[span.document_id, span.start]: span.score
            for span in self._lexical.ranked(question, _DEPTH)
        }
        count = min(_DEPTH, len(self._passages))
        near = {number: -far for number, far in self._dense.distances(question, count).items()}
        lowest = min(near.values())
        candidates = sorted(lexical.keys() | near.keys())
        fused = self._fuse(
            np.array([lexical.get(number, 0.0) for number in candidates]),
            np.array([near.get(number, lowest) for number in candidates]),
        )
        order = np.argsort(-fused, kind="stable")
        return fill((self._passages[candidates[place]] for place in order), budget)

    def size(self) -> int:
        return self._lexical.size() + self._dense.size()

    def close(self) -> None:
        self._lexical.close()


def _reciprocal(scores: Scores) -> Scores:
    fused: Scores = np.empty(len(scores))
    fused[np.argsort(-scores, kind="stable")] = 1 / (np.arange(1, len(scores) + 1) + _C)
    return fused
