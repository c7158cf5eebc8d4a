"""Attention: how strongly retrieval heads look from a question at the tokens of an index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from s3_retriever.features import HeadQueries
from s3_retriever.index import Snapshot
from s3_retriever.search.parts import Steps, add_up, apart, together
from s3_retriever.types import Scores

# Queries that meet all tokens at once; their logits take 256 bytes for every token.
QUERIES_AT_ONCE = 64
# Keys of a block.
_KEYS_AT_ONCE = 256


class Attention(ABC):
    """The attention of a question's tokens to the tokens of some sentences.

    Each query's attention is a softmax over all these tokens. A token scores the mean attention
    over the question's queries.

    Args:
        snapshot: What is scored.
        queries: The question's queries, by the head or tap that they look at.
        sentences: Which sentences are scored, bool [n].
        at_once: Most queries whose logits are held at once; the same for all parts of a collection.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        queries: Mapping[str, HeadQueries],
        sentences: NDArray[np.bool_],
        at_once: int = QUERIES_AT_ONCE,
    ) -> None:
        self._snapshot = snapshot
        self._queries = queries
        self._at_once = at_once
        self._sentences = np.flatnonzero(sentences)
        lengths = snapshot.column("n_tokens")[self._sentences].astype(np.int64)
        self._lengths = lengths
        self._scores = np.zeros(int(lengths.sum()))
        # By head or tap, the maximum and the sum of the exponentials of each query of the question.
        self._norms: dict[str, tuple[NDArray[np.float32], NDArray[np.float64]]] = {
            name: (np.zeros(len(asked.factors), np.float32), np.ones(len(asked.factors)))
            for name, asked in queries.items()
        }

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
            By head or tap, the question's tokens [q] and the share of each one's attention that
            every token of the stretch gets [q, end - start].
        """
        found = {}
        for name, asked in self._queries.items():
            attention = self._attention(name, self._stretch(name, place, start, end))
            tokens, first = np.unique(asked.tokens, return_index=True)
            counts = np.diff(np.append(first, len(asked.tokens)))
            shares = np.add.reduceat(attention.T, first) / counts[:, None]
            found[name] = (tokens, shares)
        return found

    def attend(self) -> Steps[None]:
        """Score the tokens; before that, all scores are 0."""
        for batch in self._batches():
            yield from self._add(batch)

    @abstractmethod
    def _stretch(self, name: str, place: int, start: int, end: int) -> NDArray[np.float32]:
        """The logits of a stretch of tokens, as in `pairs`, for all queries [end - start, q].

        They are -inf for attention sinks. A token has the same logits in every stretch.
        """

    @abstractmethod
    def _fill(
        self,
        logits: NDArray[np.float32],
        name: str,
        place: int,
        scored: NDArray[np.bool_],
        part: slice,
    ) -> None:
        """Compute the same for the n scored tokens of a segment and some queries, [n, q]."""

    def _attention(self, name: str, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """What logits for all queries [n, q] are as shares of each query's attention [n, q]."""
        highest, total = self._norms[name]
        shares: NDArray[np.float64] = np.exp(np.minimum(logits - highest, 0.0)) / total
        return shares

    def _batches(self) -> Iterator[list[tuple[str, slice]]]:
        """The queries of all heads and taps, as many at once as memory allows."""
        batch: list[tuple[str, slice]] = []
        room = self._at_once
        for name, asked in self._queries.items():
            start, count = 0, len(asked.factors)
            while start < count:
                part = slice(start, min(start + room, count))
                batch.append((name, part))
                room -= part.stop - start
                start = part.stop
                if room == 0:
                    yield batch
                    batch, room = [], self._at_once
        if batch:
            yield batch

    def _add(self, batch: Sequence[tuple[str, slice]]) -> Steps[None]:
        """Add the attention of some queries to the scores of the tokens."""
        from s3_retriever.search.kernels import add_weighted, column_sums

        rows = [self._logits(name, part) for name, part in batch]
        least = np.finfo(np.float32).min
        own = [logits.max(axis=0, initial=least) for logits in rows]
        highest = yield from together(_highest, own)
        for logits, peak in zip(rows, highest, strict=True):
            logits -= peak
            np.exp(logits, out=logits)
        totals = yield from together(add_up, [column_sums(attention) for attention in rows])
        for (name, part), attention, peak, total in zip(batch, rows, highest, totals, strict=True):
            all_highest, all_totals = self._norms[name]
            all_highest[part] = peak
            all_totals[part] = np.maximum(total, np.finfo(np.float32).tiny)
            weights = self._weight(name) / all_totals[part] / len(all_totals)
            add_weighted(attention, weights, self._scores)

    def _weight(self, _name: str) -> float:
        """Factor of what a head's or tap's attention adds to the scores."""
        return 1.0

    def _logits(self, name: str, part: slice) -> NDArray[np.float32]:
        """The logits of all scored tokens for some queries [n, q]."""
        logits = np.empty((len(self._scores), part.stop - part.start), dtype=np.float32)
        for place, at, scored in self._scored:
            self._fill(logits[at], name, place, scored, part)
        return logits

    @cached_property
    def _scored(self) -> list[tuple[int, slice, NDArray[np.bool_]]]:
        """For each segment with scored tokens its place, where their scores are, and which."""
        found = []
        ends = np.append(0, np.cumsum(self._lengths))
        cuts = np.searchsorted(self._sentences, self._snapshot.bounds).tolist()
        for place, (low, high) in enumerate(pairwise(cuts)):
            if low == high:
                continue
            segment = self._snapshot.segments[place]
            chosen = np.zeros(segment.n_sentences, dtype=np.bool_)
            chosen[self._sentences[low:high] - self._snapshot.bounds[place]] = True
            scored = np.repeat(chosen, segment.sentence_tokens)
            found.append((place, slice(int(ends[low]), int(ends[high])), scored))
        return found


class HeadAttention(Attention):
    """Attention through retrieval heads, whose quantized keys the index keeps."""

    @override
    def _stretch(self, name: str, place: int, start: int, end: int) -> NDArray[np.float32]:
        keys = self._snapshot.segments[place].keys(name, start, end)
        return _logits(keys, self._queries[name].factors)

    @override
    def _fill(
        self,
        logits: NDArray[np.float32],
        name: str,
        place: int,
        scored: NDArray[np.bool_],
        part: slice,
    ) -> None:
        segment = self._snapshot.segments[place]
        keys = segment.keys(name, 0, segment.n_tokens)
        keys = keys if scored.all() else keys[scored]
        logits[:] = _logits(keys, self._queries[name].factors[part])


def _logits(keys: NDArray[np.uint8], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logit of each key [n, bytes] and query [q, axes], but for a constant: [n, q].

    It is -inf for attention sinks, whose keys are 0. Blocks of one size stay in the processor's
    cache, and give a key the same logit wherever it is: BLAS adds up matrices of other shapes in
    another order.
    """
    even, odd = np.ascontiguousarray(queries[:, ::2].T), np.ascontiguousarray(queries[:, 1::2].T)
    low, high = np.zeros((2, _KEYS_AT_ONCE, keys.shape[1]), dtype=np.float32)
    logits = np.empty((len(keys), len(queries)), dtype=np.float32)
    for first in range(0, len(keys), _KEYS_AT_ONCE):
        block = keys[first : first + _KEYS_AT_ONCE]
        low[: len(block)] = block & 15
        high[: len(block)] = block >> 4
        products = low @ even
        products += high @ odd
        logits[first : first + len(block)] = products[: len(block)]
    logits[~keys.any(axis=1)] = -np.inf
    return logits


def _highest(parts: Sequence[Sequence[NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
    return [np.max(columns, axis=0) for columns in zip(*parts, strict=True)]


def best_sentences(snapshot: Snapshot, scores: Scores, tokens: int) -> Steps[NDArray[np.bool_]]:
    """The best sentences that have no more than a number of tokens together, bool [n].

    Args:
        snapshot: Has the sentences.
        scores: float64 [n]; -inf for sentences that may not be taken.
        tokens: Most tokens of all parts together.
    """
    possible = np.flatnonzero(scores > -np.inf)
    lengths = snapshot.column("n_tokens")[possible].astype(np.int64)
    order = np.arange(len(possible))
    if int(lengths.sum()) > tokens:
        order = np.argsort(-scores[possible], kind="stable")
        # The first that is too much bars what is worse in other parts.
        order = order[: int(np.searchsorted(np.cumsum(lengths[order]), tokens, side="right")) + 1]
    known = (scores[possible[order]], lengths[order])
    taken = yield from apart(partial(_within, tokens), known)
    chosen = np.zeros(len(scores), dtype=np.bool_)
    chosen[possible[order[taken]]] = True
    return chosen


def _within(
    tokens: int, parts: Sequence[tuple[Scores, NDArray[np.int64]]]
) -> list[NDArray[np.bool_]]:
    """Which of the parts' sentences, given by score and length, are among the best of all."""
    scores = np.concatenate([scores for scores, _ in parts])
    lengths = np.concatenate([lengths for _, lengths in parts])
    order = np.argsort(-scores, kind="stable")
    taken = np.zeros(len(scores), dtype=np.bool_)
    taken[order[np.cumsum(lengths[order]) <= tokens]] = True
    return np.split(taken, np.cumsum([len(scores) for scores, _ in parts])[:-1])
