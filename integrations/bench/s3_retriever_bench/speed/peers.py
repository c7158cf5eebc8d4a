"""What is searched beside the package: FAISS with the host's embeddings, and two BM25 packages."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from s3_retriever.host import Host
from s3_retriever_bench.speed.modes import RESULTS
from s3_retriever_bench.speed.scanned import Scanned
from s3_retriever_bench.speed.timing import Ask, Timing, now

CHUNK_TOKENS = 128
# rank_bm25 keeps a dictionary of each chunk and asks all of them for each word.
_MOST_SLOW_TOKENS = 3_000_000
# Vectors that are added at once, so that a bar can move.
_BLOCK = 2_048
_HNSW_NEIGHBOURS, _HNSW_SEARCH = 32, 64


class Peers:
    """Other indexes of the same text, in chunks of 128 tokens, that grow with it.

    Args:
        host: Its weights embed, see `Embedder`.
        slow: Whether rank_bm25 takes part.
    """

    def __init__(self, host: Host, *, slow: bool) -> None:
        # Its module needs packages that may be missing.
        from s3_retriever_bench.methods.embedder import Embedder

        faiss: Any = import_module("faiss")
        self._slow = slow
        self._embedder = Embedder(host)
        self._texts: list[str] = []
        width = len(self._embedder.embed_query("width"))
        self._flat = faiss.IndexFlatIP(width)
        self._hnsw = faiss.IndexHNSWFlat(width, _HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        self._hnsw.hnsw.efSearch = _HNSW_SEARCH

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self._texts)

    def grow(self, added: Iterable[Scanned]) -> None:
        """Add documents."""
        fresh = [text for one in added for text in chunks(one)]
        if not fresh:
            return
        self._texts += fresh
        # A text that repeats is embedded once.
        vectors = self._embedder.vectors(fresh)
        self._flat.add(vectors)
        blocks = range(0, len(vectors), _BLOCK)
        for start in tqdm(blocks, desc="Building HNSW", unit="block", disable=None):
            self._hnsw.add(vectors[start : start + _BLOCK])

    def asks(self, tokens: int) -> tuple[dict[str, Ask], dict[str, str]]:
        """What can be asked of the documents so far.

        Args:
            tokens: How many tokens these have.

        Returns:
            By name, what is asked, and why others are not.
        """
        asks: dict[str, Ask] = {
            "faiss-flat": partial(self._dense, self._flat),
            "faiss-hnsw": partial(self._dense, self._hnsw),
            "bm25s": _bm25s(self._texts),
        }
        if not self._slow:
            return asks, {"rank-bm25": "left out by --no-slow-peers"}
        if tokens > _MOST_SLOW_TOKENS:
            return asks, {
                "rank-bm25": f"not run above {_MOST_SLOW_TOKENS:,} tokens, where it takes minutes "
                "and gigabytes"
            }
        return {**asks, "rank-bm25": _rank_bm25(self._texts)}, {}

    def _dense(self, index: Any, question: str) -> Timing:
        started = now()
        vector = np.array([self._embedder.embed_query(question)], dtype=np.float32)
        embedded = now()
        index.search(vector, RESULTS)
        return Timing(now() - started, embedded - started)


def chunks(scanned: Scanned) -> Iterator[str]:
    """A document's text in runs of 128 tokens, without what is white space alone."""
    text = scanned.document.text
    bounds = [*map(int, scanned.starts[::CHUNK_TOKENS]), len(text)]
    for start, end in pairwise(bounds):
        if piece := text[start:end].strip():
            yield piece


def _bm25s(texts: Sequence[str]) -> Ask:
    import bm25s

    # It tells of its work in the log, whose level it sets for itself.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    # The faster of its two backends.
    index: Any = bm25s.BM25(backend="numba")
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
