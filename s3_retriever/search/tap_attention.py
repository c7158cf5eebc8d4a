"""Attention to features: a question's tokens look at key taps, through the SAE's decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from s3_retriever.features import HeadQueries
from s3_retriever.index import Segment, Snapshot
from s3_retriever.recipe import Recipe
from s3_retriever.search.attention import QUERIES_AT_ONCE, Attention
from s3_retriever.search.fusion import rounded
from s3_retriever.types import Scores

# Most bytes of the logits of all tokens of a collection.
_LOGIT_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, eq=False)
class Glances:
    """What a question looks at in some tokens, feature by feature, n of them.

    Attributes:
        positions: The token of each, as a position in its segment, int64 [n].
        features: The feature that fires there, int64 [n].
        scores: What the feature adds to the token's score, float64 [n].
        asking: The question's token that looks at it most, int64 [n].
    """

    positions: NDArray[np.int64]
    features: NDArray[np.int64]
    scores: Scores
    asking: NDArray[np.int64]


class TapAttention(Attention):
    """How strongly a question looks at the features of tokens and sentences of a snapshot.

    The `s3` signal with scoring `FeatureAttention`. Scores are relative to chance: 1 is what every
    token would score if the question looked at all of them alike.

    Args:
        snapshot: What is scored.
        queries: The question's queries, by tap name.
        recipe: Says what each tap weighs.
        sentences: Which sentences are scored, bool [n].
        tokens: Tokens of the collection that the snapshot is a part of.
    """

    # Redundancy, which asks for the shares of features, needs another scoring.
    n_features = 0

    def __init__(
        self,
        snapshot: Snapshot,
        queries: Mapping[str, HeadQueries],
        recipe: Recipe,
        sentences: NDArray[np.bool_],
        tokens: int,
    ) -> None:
        room = _LOGIT_BYTES // (4 * max(tokens, 1))
        super().__init__(snapshot, queries, sentences, max(min(QUERIES_AT_ONCE, room), 1))
        self._weights = {name: part.weight * tokens for name, part in recipe.taps.items()}

    @override
    def sentences(self) -> Scores:
        """As `Attention.sentences`, rounded: copies of a sentence shall score the same."""
        return rounded(super().sentences())

    @cached_property
    def tokens(self) -> list[Scores]:
        """For each segment the token scores, float64 [tokens]; 0 for those that are not scored."""
        every = [np.zeros(segment.n_tokens) for segment in self._snapshot.segments]
        for place, at, scored in self._scored:
            every[place][scored] = self._scores[at]
        return every

    def raw(self, place: int) -> Scores:
        """Token scores [tokens] of the segment at a place of the snapshot."""
        return self.tokens[place]

    def glances(self, place: int, start: int, end: int) -> dict[str, Glances]:
        """What the question looks at in a stretch of tokens, by tap; see `pairs`.

        A query looks at a token through the features that add to its logit, in proportion.
        """
        found = {}
        for tap, asked in self._queries.items():
            fires = _fires(self._snapshot.segments[place], tap, start, end)
            attention = self._attention(tap, _logits(fires, asked.factors))
            scores, most = np.zeros((2, *fires.shape))
            asking = np.zeros(fires.shape, dtype=np.int64)
            for number, factors in enumerate(asked.factors):
                added = np.where(fires >= 0, factors[fires].clip(min=0), 0.0)
                whole = added.sum(axis=1, keepdims=True)
                added *= attention[:, number, None] / np.where(whole > 0, whole, 1.0)
                scores += added
                asking[added > most] = asked.tokens[number]
                most = np.maximum(most, added)
            scores *= self._weight(tap) / max(len(asked.factors), 1)
            seen = scores > 0
            positions = np.broadcast_to(np.arange(start, end)[:, None], fires.shape)
            found[tap] = Glances(
                positions[seen], fires[seen].astype(np.int64), scores[seen], asking[seen]
            )
        return found

    @override
    def _weight(self, name: str) -> float:
        return self._weights[name]

    @override
    def _stretch(self, name: str, place: int, start: int, end: int) -> NDArray[np.float32]:
        fires = _fires(self._snapshot.segments[place], name, start, end)
        return _logits(fires, self._queries[name].factors)

    @override
    def _fill(
        self,
        logits: NDArray[np.float32],
        name: str,
        place: int,
        scored: NDArray[np.bool_],
        part: slice,
    ) -> None:
        segment, factors = self._snapshot.segments[place], self._queries[name].factors[part]
        done = 0
        for first, fires in _blocks(segment, name):
            wanted = fires[scored[first : first + len(fires)]]
            logits[done : done + len(wanted)] = _logits(wanted, factors)
            done += len(wanted)


def _fires(segment: Segment, tap: str, start: int, end: int) -> NDArray[np.int32]:
    """The features of a stretch of tokens of a segment, -1 where fewer fire [end - start, k]."""
    parts = []
    for first, fires in _blocks(segment, tap, start, end):
        parts.append(fires[max(start - first, 0) : end - first])
    widest = max((fires.shape[1] for fires in parts), default=0)
    missing = [(0, 0), (0, 0)]
    padded = [np.zeros((0, widest), dtype=np.int32)]
    for fires in parts:
        missing[1] = (0, widest - fires.shape[1])
        padded.append(np.pad(fires, missing, constant_values=-1))
    return np.concatenate(padded)


def _blocks(
    segment: Segment, tap: str, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """The first token of each block with tokens of a stretch, and the features of its tokens."""
    end = segment.n_tokens if end is None else end
    firsts = segment.sentences["first_token"][segment.blocks[:-1]].astype(np.int64)
    after = np.append(firsts, segment.n_tokens)[1:]
    for block in np.flatnonzero((firsts < end) & (after > start)).tolist():
        yield int(firsts[block]), segment.block_features(tap, block)


def _logits(fires: NDArray[np.int32], factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logit of each token, given its features [n, k], and query, but for a constant: [n, q].

    It is -inf for tokens without features, which are attention sinks.
    """
    from s3_retriever.search.kernels import add_rows

    logits = np.zeros((len(fires), len(factors)), dtype=np.float32)
    add_rows(np.ascontiguousarray(factors.T), fires, logits)
    logits[~(fires >= 0).any(axis=1)] = -np.inf
    return logits
