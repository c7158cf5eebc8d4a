"""Signals: how co-activation, mean states and BM25 score each sentence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3_retriever.features import EncodedQuestion, TapFeatures
from s3_retriever.index import Segment, Snapshot
from s3_retriever.recipe import FeatureCoverage, MaxToken, Recipe
from s3_retriever.search.fusion import DIGITS, rounded
from s3_retriever.search.parts import Sizes, Steps, add_up, together
from s3_retriever.text import analyze_question, term_hash
from s3_retriever.types import Scores

# Parameters of BM25, Lucene's defaults but for k1.
K1 = 1.5
B = 0.75

# What `str.rpartition` gives of a term that names no language.
_BARE = ("", "")


@dataclass(frozen=True, slots=True)
class FeatureWeights:
    """The question's features at one tap.

    Attributes:
        features: Ascending, int64 [f].
        weights: Factor of each, without its IDF, float64 [f].
    """

    features: NDArray[np.int64]
    weights: NDArray[np.float64]


def question_weights(
    question: Mapping[str, TapFeatures], recipe: Recipe
) -> dict[str, FeatureWeights]:
    """Pool the features of a question's tokens (w_q of S3-Attention, eq. 7), by tap name."""
    pool = np.add if recipe.advanced.pooling == "sum" else np.maximum
    weights = {}
    for tap, part in recipe.taps.items():
        fires = question[tap].indices >= 0
        features, which = np.unique(question[tap].indices[fires], return_inverse=True)
        pooled = np.zeros(len(features))
        pool.at(pooled, which, question[tap].values[fires].astype(np.float64))
        weights[tap] = FeatureWeights(features, part.weight * pooled**recipe.advanced.weight_power)
    return weights


class Coactivation:
    """How strongly the question's features fire in each token and sentence of a snapshot.

    Args:
        snapshot: What is scored.
        question: Weights of the question's features, by tap name.
        recipe: Says how a sentence scores.
        idf_power: Exponent of the IDF; defaults to the recipe's.
        counts: How often the features fire in the collection that the snapshot is a part of;
            defaults to the snapshot by itself.

    Attributes:
        weights: By tap name, the weight of each feature with its IDF, float64 [f].
    """

    def __init__(
        self,
        snapshot: Snapshot,
        question: Mapping[str, FeatureWeights],
        recipe: Recipe,
        idf_power: float | None = None,
        counts: FeatureCounts | None = None,
    ) -> None:
        self.question = question
        self._scoring = recipe.scoring
        self._segments = snapshot.segments
        power = recipe.advanced.idf_power if idf_power is None else idf_power
        tokens, fires = counts or FeatureCounts(
            snapshot.n_tokens, feature_frequencies(snapshot, question)
        )
        self.weights = {
            tap: part.weights * _idf(fires[tap], tokens) ** power for tap, part in question.items()
        }

    @property
    def by_token(self) -> bool:
        """Whether a feature counts for each token on which it fires, not once for a sentence."""
        return isinstance(self._scoring, MaxToken)

    @property
    def n_features(self) -> int:
        """How many features the question has at all taps."""
        return sum(len(weights) for weights in self.weights.values())

    @cached_property
    def tokens(self) -> list[Scores]:
        """For each segment the token scores, float64 [tokens], smoothed if scoring says so."""
        kernel = self._scoring.kernel if isinstance(self._scoring, MaxToken) else 1
        return [
            smooth(self.raw(place), segment.documents["first_token"].astype(np.int64), kernel)
            for place, segment in enumerate(self._segments)
        ]

    def raw(self, place: int) -> Scores:
        """Token scores [tokens] of the segment at a place of the snapshot, before smoothing."""
        segment = self._segments[place]
        scores = np.zeros(segment.n_tokens)
        for tap, part in self.question.items():
            segment.add_to_tokens(tap, part.features, self.weights[tap], scores)
        return scores

    def sentences(self) -> Scores:
        """The score of each sentence of the snapshot [n], as `Recipe.scoring` says.

        Scores are rounded: features are added up in an order that depends on the segment, and
        copies of a sentence shall score the same.
        """
        score = self._max_token if isinstance(self._scoring, MaxToken) else self._coverage
        parts = [
            score(place, segment)
            for place, segment in enumerate(self._segments)
            if segment.n_sentences
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _max_token(self, place: int, segment: Segment) -> Scores:
        """The best token of each sentence (S3-Attention's max within a span)."""
        first = segment.sentences["first_token"].astype(np.int64)
        return rounded(np.maximum.reduceat(self.tokens[place], first))

    def _coverage(self, _place: int, segment: Segment) -> Scores:
        """The distinct features of each sentence, long sentences discounted."""
        from s3_retriever.search.kernels import discount

        scores = np.zeros(segment.n_sentences)
        for tap, part in self.question.items():
            segment.add_to_sentences(tap, part.features, self.weights[tap], scores)
        # Sentences are short: a few powers serve all of them.
        lengths = segment.sentence_tokens
        powers = self._discount(np.arange(1, int(lengths.max()) + 1))
        discount(scores, lengths, powers, 10.0**DIGITS)
        return scores

    def shares(self, place: int, ordinals: NDArray[np.int64]) -> Scores:
        """What each feature adds to the scores of some sentences under `FeatureCoverage`.

        Args:
            place: Place of the sentences' segment in the snapshot.
            ordinals: Sentences of the segment [n], ascending.

        Returns:
            float64 [n, f], tap after tap.
        """
        segment = self._segments[place]
        parts = [
            segment.features_in(tap, part.features, ordinals) * self.weights[tap]
            for tap, part in self.question.items()
        ]
        lengths = segment.sentence_tokens[ordinals]
        return np.concatenate(parts, axis=1) * self._discount(lengths)[:, None]

    def firing(
        self, place: int, start: int, end: int
    ) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Which of the question's features fire on the tokens from `start` to before `end`.

        Returns:
            By tap name, token positions [n] and the index [n] of the feature among the tap's
            `weights`.
        """
        firing = {}
        for tap, part in self.question.items():
            positions, which = self._segments[place].postings(tap, part.features)
            inside = (positions >= start) & (positions < end)
            firing[tap] = (positions[inside], which[inside])
        return firing

    def _discount(self, lengths: NDArray[np.int64]) -> Scores:
        assert isinstance(self._scoring, FeatureCoverage)
        return np.asarray(lengths.astype(np.float64) ** -self._scoring.length_power)


class FeatureCounts(NamedTuple):
    """How often features fire.

    Attributes:
        tokens: Number of live tokens.
        fires: By tap, on how many of them each of some features fires, int64 [f].
    """

    tokens: int
    fires: Mapping[str, NDArray[np.int64]]


def feature_frequencies(
    snapshot: Snapshot, question: Mapping[str, FeatureWeights]
) -> dict[str, NDArray[np.int64]]:
    """By tap, on how many live tokens each feature of a question fires, int64 [f]."""
    frequencies = {}
    for tap, part in question.items():
        frequencies[tap] = np.zeros(len(part.features), dtype=np.int64)
        for segment in snapshot.segments:
            frequencies[tap] += segment.frequencies(tap, part.features)
    return frequencies


def _idf(frequency: NDArray[np.int64], tokens: int) -> Scores:
    """`-log(share of the live tokens on which a feature fires)`, 0 if it never fires."""
    share = frequency / max(tokens, 1)
    return -np.log(share, where=share > 0, out=np.zeros(len(share)))


def smooth(scores: Scores, first_tokens: NDArray[np.int64], kernel: int) -> Scores:
    """Sum the scores of the `kernel` tokens around each token of its own document.

    S3-Attention convolves token scores before it looks for peaks. It does not state the shape of
    its kernel; this one is a box.

    Args:
        scores: Token scores [n].
        first_tokens: Position of each document's first token, ascending, the first of them 0.
        kernel: Width in tokens; 1 leaves the scores as they are.

    Returns:
        Smoothed scores [n].
    """
    if kernel == 1 or len(scores) == 0:
        return scores
    left, right = box(kernel)
    positions = np.arange(len(scores))
    starts = np.unique(first_tokens)
    ends = np.append(starts[1:], len(scores))
    # A window ends with its document, however wide the kernel is.
    low = np.maximum(positions - left, np.repeat(starts, ends - starts))
    high = np.minimum(positions + right + 1, np.repeat(ends, ends - starts))
    total = np.concatenate([[0.0], np.cumsum(scores)])
    return np.asarray(total[high] - total[low])


def box(kernel: int) -> tuple[int, int]:
    """How many tokens a kernel takes to the left and to the right of its centre."""
    return kernel // 2, (kernel - 1) // 2


def similarity(snapshot: Snapshot, question: EncodedQuestion) -> Scores | None:
    """The cosine of each sentence's mean state, as its vector keeps it, and the question's.

    Returns:
        float64 [n], about -1 to 1; None if the recipe does not score sentences.
    """
    return None if question.direction is None else cosines(snapshot, question.direction)


def cosines(snapshot: Snapshot, direction: NDArray[np.float32]) -> Scores:
    """The cosine of each sentence's vector and a direction [axes] of unit length, float64 [n]."""
    parts = [segment.similarity(direction) for segment in snapshot.segments]
    return np.concatenate(parts) if parts else np.zeros(0)


@dataclass(frozen=True, slots=True)
class TermGains:
    """What each term of a question adds to the score of each sentence that has it.

    Attributes:
        terms: The question's distinct terms, as `count_terms` names them, t of them.
        numbers: Sentences, int64 [n].
        which: The term of each entry, as an index into `terms`, int64 [n].
        counts: How often the sentence of each entry has it, int64 [n].
        occurrences: How often the question has each term, float64 [t].
        gains: BM25 gain of each entry, float64 [n].
        idf: IDF of each term, float64 [t].
        several: Whether the term of each entry was found in several languages, so that a sentence
            may have two entries for it, bool [n].
        wholes: For each entry the IDF of all terms that are not function words in its language,
            float64 [n].
    """

    terms: tuple[str, ...]
    numbers: NDArray[np.int64]
    which: NDArray[np.int64]
    counts: NDArray[np.int64]
    occurrences: NDArray[np.float64]
    gains: Scores
    idf: Scores
    several: NDArray[np.bool_]
    wholes: Scores

    def coverage(self, size: int) -> Scores:
        """The share of the question's terms that each sentence has, weighted by IDF [size].

        Function words of a sentence's own language are not missed in it.
        """
        numbers, which = self.numbers, self.which
        if not len(numbers):
            return np.zeros(size)
        if self.several.any():
            places = np.unique(numbers * len(self.terms) + which)
            numbers, which = np.divmod(places, len(self.terms))
        had = np.bincount(numbers, self.idf[which], minlength=size)
        whole = self.wholes[:1]
        if (self.wholes != whole).any():
            whole = np.full(size, np.inf)
            np.minimum.at(whole, self.numbers, self.wholes)
        shares: Scores = np.minimum(had / whole, 1.0)
        return shares

    def scores(self, size: int) -> Scores:
        """BM25 scores of all sentences [size]; 0 without a term of the question."""
        return np.bincount(self.numbers, self.gains, minlength=size).astype(np.float64, copy=False)

    def scores_of(self, several: Sequence[Mapping[str, QuestionTerm]], size: int) -> list[Scores]:
        """BM25 scores of all sentences [size] for each of several questions.

        Args:
            several: The questions' terms, of which `terms` are the union, with one occurrence.
            size: Number of sentences.
        """
        rows = []
        for counted in several:
            counts = np.array(
                [counted[name].occurrences if name in counted else 0 for name in self.terms],
                dtype=np.float64,
            )
            weighted = self.gains * counts[self.which]
            scores = np.bincount(self.numbers, weighted, minlength=size)
            rows.append(scores.astype(np.float64, copy=False))
        return rows

    def documents(self, snapshot: Snapshot, sizes: Sizes) -> Steps[Scores]:
        """BM25 of whole documents, float64 [documents], as `Snapshot.document_starts` lists them.

        A title counts once for every sentence, as in the sentences' own scores. Deleted documents
        enter no statistic and score 0.

        Args:
            snapshot: What the terms were looked up in.
            sizes: Those of the collection that it is a part of.
        """
        starts = snapshot.document_starts
        size = len(self.terms)
        documents = np.searchsorted(starts, self.numbers, side="right") - 1
        pairs, inverse = np.unique(documents * size + self.which, return_inverse=True)
        documents, which = np.divmod(pairs, max(size, 1))
        counts = np.bincount(inverse, self.counts, minlength=len(pairs))
        frequency = yield from together(add_up, np.bincount(which, minlength=size))
        weights = self.occurrences * _term_idf(frequency, sizes.documents)
        terms = np.where(snapshot.live, snapshot.column("n_terms"), 0)
        lengths = np.add.reduceat(terms, starts).astype(np.float64) if len(starts) else np.zeros(0)
        mean = sizes.terms / max(sizes.documents, 1)
        gains = _bm25(weights[which], counts, lengths[documents], mean)
        return np.bincount(documents, gains, minlength=len(starts)).astype(np.float64, copy=False)

    def shares(self, numbers: NDArray[np.int64], size: int) -> Scores:
        """What each term adds to the scores of some sentences [n] out of `size`, [n, t]."""
        row = np.full(size, -1)
        row[numbers] = np.arange(len(numbers))
        rows = row[self.numbers]
        shares = np.zeros((len(numbers), len(self.terms)))
        kept = rows >= 0
        shares[rows[kept], self.which[kept]] = self.gains[kept]
        return shares


class QuestionTerm(NamedTuple):
    """A term of a question.

    Attributes:
        occurrences: How often it occurs in the question.
        alternatives: What it is in documents of one language or another.
    """

    occurrences: int
    alternatives: frozenset[str]


def count_terms(text: str, languages: frozenset[str] | None = None) -> dict[str, QuestionTerm]:
    """The terms of a question, by their first alternative: the English one, if there is one.

    Args:
        text: The question.
        languages: Languages of the documents; None if any may occur.
    """
    counted: dict[str, QuestionTerm] = {}
    for alternatives in analyze_question(text, languages):
        count, known = counted.get(alternatives[0], QuestionTerm(0, frozenset()))
        counted[alternatives[0]] = QuestionTerm(count + 1, known.union(alternatives))
    return counted


@dataclass(frozen=True, slots=True)
class FoundTerms:
    """Where terms of a question are.

    Attributes:
        counted: The question's terms, t of them, with n names in all.
        numbers: Live sentences, int64 [m].
        found: Which name each of them has, int64 [m].
        counts: How often, int64 [m].
    """

    counted: Mapping[str, QuestionTerm]
    numbers: NDArray[np.int64]
    found: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def frequencies(self) -> NDArray[np.int64]:
        """How many sentences have each name, int64 [n]."""
        names = sum(len(term.alternatives) for term in self.counted.values())
        return np.bincount(self.found, minlength=names)


def find_terms(snapshot: Snapshot, counted: Mapping[str, QuestionTerm]) -> FoundTerms:
    """Look up a question's terms; deleted sentences have none."""
    names = [name for term in counted.values() for name in sorted(term.alternatives)]
    hashes = np.array([term_hash(name) for name in names], dtype=np.uint64)
    return FoundTerms(counted, *_live_postings(snapshot, hashes))


def term_gains(snapshot: Snapshot, counted: Mapping[str, QuestionTerm]) -> TermGains:
    """BM25 of a question, term by term, in a snapshot by itself; see `gains_of`."""
    found = find_terms(snapshot, counted)
    return gains_of(snapshot, found, found.frequencies, Sizes.of(snapshot))


def gains_of(
    snapshot: Snapshot, found: FoundTerms, frequencies: NDArray[np.int64], sizes: Sizes
) -> TermGains:
    """BM25 of a question, term by term (Lucene's variant, whose IDF is never negative).

    A term is as frequent as all of its alternatives together: words that languages share do not
    count as rare in the language of few documents.

    Args:
        snapshot: What is scored; deleted sentences enter no statistic.
        found: Where the question's terms are in it.
        frequencies: How many sentences of the collection have each name, int64 [n].
        sizes: Those of the collection.
    """
    counted = found.counted
    alternatives = [len(term.alternatives) for term in counted.values()]
    owners = np.repeat(np.arange(len(counted)), np.array(alternatives, dtype=np.int64))
    which = owners[found.found]
    idf = _term_idf(np.bincount(owners, frequencies, minlength=len(counted)), sizes.sentences)
    occurrences = np.array([term.occurrences for term in counted.values()], dtype=np.float64)
    weights = idf * occurrences
    lengths = snapshot.column("n_terms")[found.numbers].astype(np.float64)
    languages = np.bincount(owners[frequencies > 0], minlength=len(counted))
    return TermGains(
        terms=tuple(counted),
        numbers=found.numbers,
        which=which,
        counts=found.counts,
        occurrences=occurrences,
        gains=_bm25(weights[which], found.counts, lengths, sizes.mean_terms),
        idf=idf,
        several=languages[which] > 1,
        wholes=_wholes(counted.values(), idf)[found.found],
    )


def _term_idf(frequency: NDArray[Any], total: int) -> Scores:
    """IDF of terms that so many of all sentences or documents have."""
    return np.asarray(np.log1p((total - frequency + 0.5) / (frequency + 0.5)))


def _bm25(weights: Scores, counts: NDArray[Any], lengths: Scores, mean: float) -> Scores:
    """What terms of these weights [n] add to texts that have them so often [n].

    Args:
        weights: IDF of each term, times its occurrences in the question.
        counts: Occurrences in the text.
        lengths: Lengths of the texts, in terms.
        mean: Their mean over all texts.
    """
    saturation = K1 * (1 - B + B * lengths / max(mean, 1.0))
    return np.asarray(weights * counts * (K1 + 1) / (counts + saturation))


def _wholes(terms: Iterable[QuestionTerm], idf: Scores) -> Scores:
    """For each alternative of each term, the IDF of all terms that its language has."""
    # English terms and those of scripts without languages, such as numbers, have no prefix.
    prefixes = [[name.rpartition(":")[:2] for name in sorted(term.alternatives)] for term in terms]
    totals: defaultdict[tuple[str, str], float] = defaultdict(float)
    everywhere = 0.0
    for own, weight in zip(prefixes, idf.tolist(), strict=True):
        if own == [_BARE]:
            everywhere += weight
        else:
            for prefix in set(own):
                totals[prefix] += weight
    return np.array([totals[each] + everywhere for own in prefixes for each in own])


def united_terms(several: Iterable[Mapping[str, QuestionTerm]]) -> dict[str, QuestionTerm]:
    """The terms of several questions, once each."""
    every: dict[str, QuestionTerm] = {}
    for counted in several:
        for name, term in counted.items():
            known = every[name].alternatives if name in every else frozenset[str]()
            every[name] = QuestionTerm(1, known | term.alternatives)
    return every


def _live_postings(
    snapshot: Snapshot, hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    empty = np.zeros(0, dtype=np.int64)
    parts = [(empty, empty, empty)]
    for segment, first in zip(snapshot.segments, snapshot.bounds[:-1], strict=True):
        ordinals, which, counts = segment.lexical(hashes)
        parts.append((ordinals + first, which, counts))
    numbers, which, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    if snapshot.n_sentences == len(snapshot):
        return numbers, which, counts
    kept = snapshot.live[numbers]
    return numbers[kept], which[kept], counts[kept]
