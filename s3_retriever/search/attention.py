"""Attention: how strongly retrieval heads look from a question at the tokens of an index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from s3_retriever.features import HeadQueries
from s3_retriever.index import Snapshot
from s3_retriever.types import Scores

# Queries that meet all keys at once; their logits take 256 bytes for every token.
_QUERIES_AT_ONCE = 64


class HeadAttention:
    """The attention of a question's tokens to the tokens of some sentences.

    Each query's attention is a softmax over all these tokens. A token scores the mean attention
    over the question's queries.

    Args:
        snapshot: What is scored.
        queries: Key head to the question's queries.
        sentences: Which sentences are scored, bool [n].
    """

    def __init__(
        self,
        snapshot: Snapshot,
        queries: Mapping[str, HeadQueries],
        sentences: NDArray[np.bool_],
    ) -> None:
        self._snapshot = snapshot
        self._queries = queries
        self._sentences = np.flatnonzero(sentences)
        lengths = snapshot.column("n_tokens")[self._sentences].astype(np.int64)
        self._lengths = lengths
        self._scores = np.zeros(int(lengths.sum()))
        # By head, the maximum and the sum of the exponentials of each query of the question.
        self._norms: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        for head, asked in queries.items():
            self._add(head, asked)

    def sentences(self) -> Scores:
        """The score of each sentence of the snapshot [n]; 0 for those that are not scored.

        Returns:
            The sum over a sentence's tokens, divided by the root of their number.
        """
        scores = np.zeros(len(self._snapshot))
        if self._lengths.size:
            begins = np.cumsum(self._lengths) - self._lengths
            scores[self._sentences] = np.add.reduceat(self._scores, begins) / self._lengths**0.5
        return scores

    def pairs(
        self, place: int, start: int, end: int
    ) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Which token of the question looks at which token of a stretch.

        Args:
            place: Place of the tokens' segment in the snapshot.
            start: Position of the stretch's first token in that segment.
            end: Position after its last one.

        Returns:
            By head, the question's tokens [q] and the share of each one's attention that every
            token of the stretch gets [q, end - start].
        """
        segment, found = self._snapshot.segments[place], {}
        for head, asked in self._queries.items():
            highest, total = self._norms[head]
            keys = segment.keys(head, start, end)
            logits = _logits(keys, asked.factors) - highest
            attention = np.exp(np.minimum(logits, 0.0)) / total
            attention[~keys.any(axis=1)] = 0.0
            tokens, first = np.unique(asked.tokens, return_index=True)
            counts = np.diff(np.append(first, len(asked.tokens)))
            shares = np.add.reduceat(attention.T.astype(np.float64), first) / counts[:, None]
            found[head] = (tokens, shares)
        return found

    def _add(self, head: str, asked: HeadQueries) -> None:
        """Add a head's attention to the scores of the tokens."""
        queries, count = asked.factors, len(asked.factors)
        highest, total = np.zeros(count, dtype=np.float32), np.ones(count, dtype=np.float32)
        self._norms[head] = highest, total
        if not self._scores.size:
            return
        keys = np.concatenate(list(self._keys(head)))
        sinks = ~keys.any(axis=1)
        for first in range(0, count, _QUERIES_AT_ONCE):
            part = slice(first, first + _QUERIES_AT_ONCE)
            logits = _logits(keys, queries[part])
            logits[sinks] = -np.inf
            highest[part] = np.maximum(logits.max(axis=0), np.finfo(np.float32).min)
            logits -= highest[part]
            attention = np.exp(logits, out=logits)
            total[part] = np.maximum(attention.sum(axis=0), np.finfo(np.float32).tiny)
            self._scores += attention @ (1 / total[part] / count)

    def _keys(self, head: str) -> Iterator[NDArray[np.uint8]]:
        """The keys of the scored sentences, segment by segment."""
        yield np.zeros((0, self._queries[head].factors.shape[1] // 2), dtype=np.uint8)
        cuts = np.searchsorted(self._sentences, self._snapshot.bounds).tolist()
        for place, (low, high) in enumerate(pairwise(cuts)):
            if low == high:
                continue
            segment = self._snapshot.segments[place]
            keys = segment.keys(head, 0, segment.n_tokens)
            if high - low < segment.n_sentences:
                scored = np.zeros(segment.n_sentences, dtype=np.bool_)
                scored[self._sentences[low:high] - self._snapshot.bounds[place]] = True
                keys = keys[np.repeat(scored, segment.sentence_tokens)]
            yield keys


def _logits(keys: NDArray[np.uint8], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logit of each key [n, bytes] and query [q, axes], but for a constant: [n, q]."""
    low = (keys & 15).astype(np.float32)
    high = (keys >> 4).astype(np.float32)
    logits: NDArray[np.float32] = low @ queries[:, ::2].T
    logits += high @ queries[:, 1::2].T
    return logits


def best_sentences(snapshot: Snapshot, scores: Scores, tokens: int) -> NDArray[np.bool_]:
    """The best sentences that have no more than a number of tokens together, bool [n].

    Args:
        snapshot: Has the sentences.
        scores: float64 [n]; -inf for sentences that may not be taken.
        tokens: Most tokens.
    """
    possible = scores > -np.inf
    lengths = snapshot.column("n_tokens").astype(np.int64)
    if int(lengths[possible].sum()) <= tokens:
        return possible
    order = np.argsort(-scores, kind="stable")
    chosen = np.zeros(len(scores), dtype=np.bool_)
    chosen[order[np.cumsum(lengths[order]) <= tokens]] = True
    return chosen & possible
