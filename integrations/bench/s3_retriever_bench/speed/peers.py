"""What `speed` searches beside the package: FAISS with the host's embeddings, two BM25 packages."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import faiss
import numpy as np
from tqdm.auto import tqdm

from s3_retriever import Codebook, Host
from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever_bench.retrieval.rankers import Embedder

RESULTS = 5
CHUNK_TOKENS = 128
# rank_bm25 keeps a dictionary of each chunk and consults all of them for each word.
_MOST_SLOW_TOKENS = 3_000_000
# Vectors to add at once, in steps small enough for a bar to move.
_BLOCK = 2_048
# The faster of its two backends.
BM25S_BACKEND = "numba"
_HNSW_NEIGHBOURS, _HNSW_SEARCH = 32, 64


class Timing(NamedTuple):
    """Milliseconds of one search: from question to results, and of the model within that."""

    whole: float
    host: float


Ask = Callable[[str], Timing]


def now() -> float:
    """Milliseconds of a monotonic clock."""
    return 1_000 * time.perf_counter()


class Peers:
    """Other indexes of the same text, in chunks of 128 tokens.

    Args:
        host: Its weights embed; see `Embedder`.
        codebook: The host's codebook.
        slow: Whether rank_bm25 takes part.
    """

    def __init__(self, host: Host, codebook: Codebook, *, slow: bool) -> None:
        self._slow = slow
        self._embedder = Embedder(host, codebook)
        self._texts: list[str] = []
        width = len(self._embedder.embed_query("width"))
        self._flat: Any = faiss.IndexFlatIP(width)
        self._hnsw: Any = faiss.IndexHNSWFlat(width, _HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        self._hnsw.hnsw.efSearch = _HNSW_SEARCH

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self._texts)

    def grow(self, chunks: Sequence[str]) -> None:
        """Add chunks; a text that repeats is embedded once."""
        self._texts += chunks
        if not chunks:
            return
        vectors = self._embedder.vectors(chunks)
        self._flat.add(vectors)
        blocks = range(0, len(vectors), _BLOCK)
        for start in tqdm(blocks, desc="Building HNSW", unit="block", disable=None):
            self._hnsw.add(vectors[start : start + _BLOCK])

    def asks(self, tokens: int) -> tuple[Mapping[str, Ask], Mapping[str, str]]:
        """Searches of the chunks so far.

        Args:
            tokens: Number of tokens that these have.

        Returns:
            Searches by name, and by name why others are skipped.
        """
        asks: dict[str, Ask] = {
            "faiss-flat": partial(self._dense, self._flat),
            "faiss-hnsw": partial(self._dense, self._hnsw),
            "bm25s": _bm25s(self._texts),
        }
        if not self._slow:
            return asks, {"rank-bm25": "left out by --no-slow-peers"}
        if tokens > _MOST_SLOW_TOKENS:
            limit = f"{_MOST_SLOW_TOKENS:,} tokens, where it takes minutes and gigabytes"
            return asks, {"rank-bm25": f"not run above {limit}"}
        return {**asks, "rank-bm25": _rank_bm25(self._texts)}, {}

    def _dense(self, index: Any, question: str) -> Timing:
        started = now()
        vector = np.array([self._embedder.embed_query(question)], dtype=np.float32)
        embedded = now()
        index.search(vector, RESULTS)
        return Timing(now() - started, embedded - started)


def chunks_of(text: str, tokenizer: OffsetTokenizer) -> tuple[int, list[str]]:
    """The tokens of a text, and its runs of 128 tokens except those of white space alone."""
    starts = [start for start, _ in tokenizer.split(text)]
    bounds = [*starts[::CHUNK_TOKENS], len(text)]
    runs = (text[start:end].strip() for start, end in pairwise(bounds))
    return len(starts), [run for run in runs if run]


def _bm25s(texts: Sequence[str]) -> Ask:
    import bm25s

    # It logs its work, and sets the level of its logger itself.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    index: Any = bm25s.BM25(backend=BM25S_BACKEND)
    index.index(bm25s.tokenize(list(texts), show_progress=False), show_progress=False)
    results = min(RESULTS, len(texts))

    def ask(question: str) -> Timing:
        started = now()
        words = bm25s.tokenize(question, return_ids=False, show_progress=False)
        index.retrieve(words, k=results, show_progress=False)
        return Timing(now() - started, 0.0)

    return ask


def _rank_bm25(texts: Sequence[str]) -> Ask:
    from rank_bm25 import BM25Okapi

    index: Any = BM25Okapi([text.split() for text in texts])
    results = min(RESULTS, len(texts))

    def ask(question: str) -> Timing:
        started = now()
        scores = -index.get_scores(question.split())
        best = np.argpartition(scores, results - 1)[:results]
        best[np.argsort(scores[best])]
        return Timing(now() - started, 0.0)

    return ask
