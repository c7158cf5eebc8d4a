"""Selection: the best spans under a limit, without overlap and with little repetition."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from heapq import heappop, heappush, heapreplace
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from s3_retriever.index import Segment
from s3_retriever.recipe import Recipe, Redundancy
from s3_retriever.search.context import Surroundings
from s3_retriever.search.fusion import DIGITS, nth_largest
from s3_retriever.search.ranking import Ranking
from s3_retriever.search.span import Span, SpanList
from s3_retriever.text import size_in_tokens
from s3_retriever.types import ContextForm, Order, Scores

# How many sentences are sorted at first, and how many next; most searches need no more.
_SORTED = (64, 1_024)
# Sentences whose features are looked up at once.
_LOOKED_UP = 32
# Once this many sentences in a row are not relevant or do not fit into the rest of the budget, the
# search ends.
_MISSES = 64


@dataclass(frozen=True, slots=True)
class Pick:
    """A run of sentences of one document, by number, and the score of its peak when chosen."""

    first: int
    last: int
    peak: int
    score: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a search returns, of what, and in which order.

    Attributes:
        k: Most spans, or documents of a search for documents; None for no limit.
        token_budget: Most tokens of all spans together, as the host counts them; None for no
            limit. Spans that exceed the rest of the budget are skipped.
        min_relevance: Peaks of a lower relevance are skipped.
        order: `score`, best first, or `document`, as in the documents.
        unique: Whether a peak is skipped if a chosen span already has its sentence, white space
            aside: from an overlapping chunk, say, or a copy of the document.
        spans_per_document: Most spans of a document; None for no limit.
        context: What a span takes along of the text around it. Where that does not fit into the
            budget, the sentence comes alone. With forms other than `sentence`, spans that touch
            become one.
    """

    k: int | None = None
    token_budget: int | None = None
    min_relevance: float = 0.0
    order: Order = "score"
    unique: bool = True
    spans_per_document: int | None = None
    context: ContextForm = "sentence"


def select(ranking: Ranking, recipe: Recipe, limits: Limits) -> SpanList:
    """Choose spans, best first, until there are `k` or the budget is spent.

    A span is the sentence of a peak, widened to the sentences within the recipe's radius of it. A
    chosen span suppresses the sentences it covers (non-maximum suppression), and with `unique`
    also their copies elsewhere.

    Args:
        ranking: Scores of all sentences.
        recipe: Gives the radius, and how repetition is discounted.
        limits: Where to stop.
    """
    view = Here(ranking, limits.context)
    return SpanList(span_of(ranking, chosen) for chosen in choose(view, recipe, limits))


def choose(view: Candidates, recipe: Recipe, limits: Limits) -> list[Pick]:
    """The runs of sentences that `select` chooses, in the order of the result.

    Args:
        view: The sentences that may be chosen.
        recipe: Gives the radius, and how repetition is discounted.
        limits: Where to stop.
    """
    if view.best_relevance < limits.min_relevance:
        return []
    picked = pick(
        order_of(view, recipe),
        view,
        limits,
        radius=recipe.advanced.radius,
        wanted=lambda number: view.relevance(number) >= limits.min_relevance,
    )
    return arranged(view, islice(picked, limits.k), limits)


def arranged(view: Candidates, picks: Iterable[Pick], limits: Limits) -> list[Pick]:
    """Chosen runs in the order of the result; those that touch become one, if they may be wide."""
    chosen = list(picks)
    if limits.context != "sentence":
        chosen = _united(view, chosen)
        chosen.sort(key=lambda each: -each.score)
    if limits.order == "document":
        chosen.sort(key=lambda each: each.first)
    return chosen


def _united(view: Candidates, picks: Iterable[Pick]) -> list[Pick]:
    """One run instead of each several that touch in a document, with the peak of the best."""
    united: list[Pick] = []
    for each in sorted(picks, key=lambda each: each.first):
        before = united[-1] if united else None
        begins = view.document_of(each.peak).start == each.first
        if before is None or before.last + 1 != each.first or begins:
            united.append(each)
            continue
        best = before if before.score >= each.score else each
        united[-1] = replace(best, first=before.first, last=each.last)
    return united


class Candidates(Protocol):
    """Sentences that may be returned, by number, wherever they are: in this process or not."""

    @property
    def n_shares(self) -> int:
        """How many features and terms the question has."""

    @property
    def repeatable(self) -> bool:
        """Whether repetition costs nothing: mode `bm25`, a baseline, ignores it."""

    @property
    def best_relevance(self) -> float:
        """The highest relevance of any of them."""

    def sorted(self) -> Iterator[NDArray[np.int64]]:
        """Numbers by falling score, earlier ones first among equals: the best few, then more."""

    def score(self, number: int) -> float:
        """The score of a sentence."""

    def relevance(self, number: int) -> float:
        """The relevance of a sentence."""

    def shares(self, numbers: NDArray[np.int64]) -> Scores:
        """What each feature and term adds to sentences [n], ascending: [n, n_shares]."""

    def document_of(self, number: int) -> slice:
        """Numbers of all sentences of the document of a sentence."""

    def widened(self, number: int, radius: int, covered: AbstractSet[int]) -> tuple[int, int]:
        """The run that a sentence is widened to without covered ones.

        Args:
            number: The sentence.
            radius: As in a recipe; 0 for what the form of evidence says.
            covered: Sentences of chosen runs.
        """

    def tokens(self, first: int, last: int) -> int:
        """What a sentence by itself, or a run that one was widened to, takes of a budget."""

    def texts(self, first: int, last: int) -> list[str]:
        """The texts of the sentences of such a run, white space normalised."""


class Here(Candidates):
    """The candidates of a ranking of this process.

    Args:
        ranking: Scores of all sentences.
        context: What a span takes along of the text around it.
        within: Numbers of the sentences to take, such as those of a document; None for all.
    """

    def __init__(
        self,
        ranking: Ranking,
        context: ContextForm = "sentence",
        within: slice | None = None,
    ) -> None:
        self._ranking = ranking
        self._surroundings = Surroundings(ranking.snapshot, context)
        self._within = within

    @property
    @override
    def n_shares(self) -> int:
        return self._ranking.n_shares

    @property
    @override
    def repeatable(self) -> bool:
        return self._ranking.coactivation is None

    @property
    @override
    def best_relevance(self) -> float:
        assert self._ranking.relevance is not None
        return self._ranking.relevance.best

    @override
    def sorted(self) -> Iterator[NDArray[np.int64]]:
        eligible = self._ranking.eligible
        if self._within is not None:
            numbers = self._within.start + np.flatnonzero(eligible[self._within])
            yield self._falling(numbers)
            return
        scores = np.where(eligible, self._ranking.scores, -np.inf)
        limit = np.inf
        for n in _SORTED:
            if n < len(scores):
                least = nth_largest(scores, n)
                yield self._falling(np.flatnonzero((scores > least) & (scores <= limit)))
                limit = least
        yield self._falling(np.flatnonzero(eligible & (scores <= limit)))

    def _falling(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return numbers[np.argsort(-self._ranking.scores[numbers], kind="stable")]

    @override
    def score(self, number: int) -> float:
        return float(self._ranking.scores[number])

    @override
    def relevance(self, number: int) -> float:
        return self._ranking.relevance_of(number)

    @override
    def shares(self, numbers: NDArray[np.int64]) -> Scores:
        return self._ranking.shares(numbers)

    @override
    def document_of(self, number: int) -> slice:
        return self._ranking.snapshot.document_of(number)

    @override
    def widened(self, number: int, radius: int, covered: AbstractSet[int]) -> tuple[int, int]:
        if radius == 0:
            return self._surroundings.around(number, covered)
        eligible = self._ranking.eligible
        return _widen(self._ranking, number, radius, lambda at: at in covered or not eligible[at])

    @override
    def tokens(self, first: int, last: int) -> int:
        return _tokens(self._ranking, first, last)

    @override
    def texts(self, first: int, last: int) -> list[str]:
        _, segment, start = self._ranking.snapshot.locate(first)
        ordinals = range(start, start + last - first + 1)
        return [" ".join(segment.text(ordinal, ordinal).split()) for ordinal in ordinals]

    def all_tokens(self, numbers: NDArray[np.int64]) -> list[int]:
        """What sentences [n] by themselves take of a budget."""
        tokens = np.zeros(len(numbers), dtype=np.int64)
        for here, segment, ordinals in self._ranking.snapshot.located(numbers):
            rows = segment.sentences[ordinals]
            characters = (rows["end"] - rows["start"]).tolist()
            tokens[here] = list(map(size_in_tokens, rows["n_tokens"].tolist(), characters))
        return tokens.tolist()

    def all_texts(self, numbers: NDArray[np.int64]) -> list[str]:
        """The texts of sentences [n], white space normalised."""
        texts = np.empty(len(numbers), dtype=object)
        for here, segment, ordinals in self._ranking.snapshot.located(numbers):
            texts[here] = [" ".join(text.split()) for text in segment.texts(ordinals)]
        return texts.tolist()


def order_of(view: Candidates, recipe: Recipe) -> BestFirst:
    """The order in which sentences are considered.

    Args:
        view: The sentences.
        recipe: How repetition is discounted.
    """
    if recipe.redundancy is None or view.repeatable:
        return BestFirst(view)
    return LeastRedundant(view, recipe.redundancy)


class BestFirst:
    """Sentences by falling score, earlier ones first among equals.

    Args:
        view: The sentences.
    """

    def __init__(self, view: Candidates) -> None:
        self.view = view

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """Numbers and scores."""
        for numbers in self.view.sorted():
            for number in numbers.tolist():
                yield number, self.view.score(number)

    def take(self, number: int) -> None:
        """Note that a sentence was chosen; the order does not depend on it here."""


class LeastRedundant(BestFirst):
    """Sentences by falling score, discounted for what chosen sentences already cover.

    Scores only fall, so an earlier score is an upper bound, and only the sentence in front needs
    to be scored again (lazy greedy selection; Minoux, 1978).

    Args:
        view: The sentences, whose scores are fused by `ZScore`.
        recipe: How repetition is discounted.
    """

    def __init__(self, view: Candidates, recipe: Redundancy) -> None:
        super().__init__(view)
        self._recipe = recipe
        # For sentences in the queue, what each feature and term of the question adds.
        self._shares: dict[int, Scores] = {}
        self._left = np.ones(view.n_shares)
        self._taken = 0
        # Negative scores, sentences, and how many were taken when the score was computed.
        self._queue: list[tuple[float, int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """Numbers, and scores as of now; can be iterated only once."""
        chunks = self._chunks()
        chunk: NDArray[np.int64] | None = None
        # What is not in the queue yet scores no more than this. None once there is nothing left.
        bound: float | None = np.inf
        while self._queue or bound is not None:
            if bound is not None and (not self._queue or bound > -self._queue[0][0]):
                if chunk is None:
                    chunk = next(chunks, None)
                    bound = None if chunk is None else self.view.score(int(chunk[0]))
                else:
                    self._look_up(chunk)
                    bound, chunk = self.view.score(int(chunk[-1])), None
                continue
            score, number, taken = self._queue[0]
            if taken == self._taken:
                heappop(self._queue)
                yield number, -score
                del self._shares[number]
            else:
                now = round(self.view.score(number) - self._lost(number), DIGITS)
                heapreplace(self._queue, (-now, number, self._taken))

    def take(self, number: int) -> None:
        """Discount from now on what the sentence yielded last has of the question."""
        has = self._shares[number] > 0
        self._left[has] = np.maximum(self._left[has] * self._recipe.decay, self._recipe.floor)
        self._taken += 1

    def _lost(self, number: int) -> float:
        """What the score of a sentence in the queue has lost by now."""
        return float(self._shares[number] @ (1.0 - self._left))

    def _chunks(self) -> Iterator[NDArray[np.int64]]:
        for numbers in self.view.sorted():
            for start in range(0, len(numbers), _LOOKED_UP):
                yield numbers[start : start + _LOOKED_UP]

    def _look_up(self, chunk: NDArray[np.int64]) -> None:
        """Queue sentences, with what they have of the question."""
        numbers = np.sort(chunk)
        for number, shares in zip(numbers.tolist(), self.view.shares(numbers), strict=True):
            self._shares[number] = shares
            heappush(self._queue, (-self.view.score(number), number, 0))


def pick(
    best_first: BestFirst,
    view: Candidates,
    limits: Limits,
    *,
    radius: int = 0,
    wanted: Callable[[int], bool] = lambda _: True,
    said: set[str] | None = None,
) -> Iterator[Pick]:
    """Choose runs of sentences around wanted ones as `select` does, one at a time, without end.

    Args:
        best_first: Sentences in the order in which they are considered.
        view: What is known of them.
        limits: Where to stop; `k`, order and relevance are up to the caller.
        radius: As in a recipe.
        wanted: Whether a sentence may be a peak.
        said: The texts of sentences that were chosen before; gets those chosen now.
    """
    chosen = _Chosen(view, limits, set() if said is None else said)
    misses = 0
    for number, score in best_first:
        if chosen.closed(number):
            continue
        if misses == _MISSES:
            break
        if not wanted(number):
            misses += 1
            continue
        first, last = chosen.around(number, radius)
        if not chosen.fits(first, last):
            misses += 1
            continue
        # Asked last, since it reads the text.
        if chosen.repeats(number):
            continue
        misses = 0
        chosen.add(number, first, last)
        best_first.take(number)
        yield Pick(first, last, number, score)
        if chosen.left == 0:
            break


class _Chosen:
    """What is chosen so far, and what may still be.

    Args:
        view: What is known of the sentences.
        limits: The budget, whether sentences are unique, and the most spans of a document.
        said: The texts of chosen sentences.

    Attributes:
        left: What is left of the budget; None without one.
    """

    def __init__(self, view: Candidates, limits: Limits, said: set[str]) -> None:
        self.left = limits.token_budget
        self._view = view
        self._limits = limits
        self._said = said
        # The text of the sentence that was asked for last, which is the next to be chosen.
        self._asked: list[str] = []
        # The run whose tokens were asked for last, and how many it has.
        self._sized = ((-1, -1), 0)
        self._covered: set[int] = set()
        # By the first sentence of a document.
        self._spans: Counter[int] = Counter()
        # Documents that have their most spans, by first sentence and the one after the last.
        self._full: list[tuple[int, float]] = []

    def closed(self, number: int) -> bool:
        """Whether a sentence cannot be chosen any more."""
        if number in self._covered:
            return True
        place = bisect_right(self._full, (number, np.inf)) - 1
        return place >= 0 and number < self._full[place][1]

    def repeats(self, number: int) -> bool:
        """Whether a chosen sentence has the same text, if sentences are unique."""
        if not self._limits.unique:
            return False
        self._asked = self._view.texts(number, number)
        return self._said.issuperset(self._asked)

    def around(self, number: int, radius: int) -> tuple[int, int]:
        """The run that a sentence is widened to; without a radius, if it is too long, itself."""
        run = self._view.widened(number, radius, self._covered)
        return run if radius or self.fits(*run) else (number, number)

    def fits(self, first: int, last: int) -> bool:
        """Whether a run of sentences fits into what is left of the budget."""
        return self.left is None or self._tokens(first, last) <= self.left

    def add(self, number: int, first: int, last: int) -> None:
        """Choose a sentence and the run that it is widened to."""
        if self.left is not None:
            self.left -= self._tokens(first, last)
        self._covered.update(range(first, last + 1))
        if self._limits.unique:
            self._said.update(self._asked if first == last else self._view.texts(first, last))
        if self._limits.spans_per_document is not None:
            document = self._view.document_of(number)
            self._spans[document.start] += 1
            if self._spans[document.start] == self._limits.spans_per_document:
                insort(self._full, (document.start, document.stop))

    def _tokens(self, first: int, last: int) -> int:
        if self._sized[0] != (first, last):
            self._sized = (first, last), self._view.tokens(first, last)
        return self._sized[1]


def span_of(ranking: Ranking, chosen: Pick) -> Span:
    """The span that a run of sentences makes, with the relevance of its peak."""
    _, segment, first = ranking.snapshot.locate(chosen.first)
    last = first + chosen.last - chosen.first
    row = segment.document(int(segment.sentences[first]["document"]))
    contributions = {name: float(part[chosen.peak]) for name, part in ranking.contributions.items()}
    lost = chosen.score - float(ranking.scores[chosen.peak])
    if lost:
        contributions["redundancy"] = lost
    bridge = None if ranking.hop is None else ranking.hop.leaders.get(chosen.peak)
    return Span(
        text=segment.text(first, last),
        score=chosen.score,
        relevance=ranking.relevance_of(chosen.peak),
        document_id=row.id,
        start=int(segment.sentences[first]["start"]),
        end=int(segment.sentences[last]["end"]),
        sources=ranking.sources(chosen.first, chosen.last),
        metadata=row.metadata,
        tokens=_tokens(ranking, chosen.first, chosen.last),
        contributions=contributions,
        bridge=None if bridge is None else bridge.span_id,
    )


def span_id(ranking: Ranking, number: int) -> str:
    """Id of the span that is one sentence."""
    _, segment, ordinal = ranking.snapshot.locate(number)
    sentence = segment.sentences[ordinal]
    row = segment.document(int(sentence["document"]))
    return f"{row.id}:{sentence['start']}-{sentence['end']}"


def _widen(
    ranking: Ranking, number: int, radius: int, taken: Callable[[int], bool]
) -> tuple[int, int]:
    """The first and last sentence of the run within a radius of a sentence's peak token."""
    first = last = number
    place, segment, peak = ranking.snapshot.locate(number)
    offset = int(ranking.snapshot.bounds[place])
    document = segment.documents[int(segment.sentences[peak]["document"])]
    low = offset + int(document["first_sentence"])
    high = low + int(document["n_sentences"]) - 1
    position = _peak_token(ranking, place, peak)

    def start_and_end() -> tuple[int, int]:
        return token_range(segment, first - offset, last - offset)

    while first > low and not taken(first - 1) and start_and_end()[0] > position - radius:
        first -= 1
    while last < high and not taken(last + 1) and start_and_end()[1] <= position + radius:
        last += 1
    return first, last


def _peak_token(ranking: Ranking, place: int, ordinal: int) -> int:
    """Position of the sentence's best token; its middle one if tokens have no scores."""
    segment = ranking.snapshot.segments[place]
    start, end = token_range(segment, ordinal, ordinal)
    if ranking.coactivation is None:
        return (start + end) // 2
    return start + int(np.argmax(ranking.coactivation.tokens[place][start:end]))


def _tokens(ranking: Ranking, first: int, last: int) -> int:
    """What a run of sentences takes of a token budget."""
    _, segment, begin = ranking.snapshot.locate(first)
    end = begin + last - first
    first_token, after = token_range(segment, begin, end)
    characters = int(segment.sentences[end]["end"]) - int(segment.sentences[begin]["start"])
    return size_in_tokens(after - first_token, characters)


def token_range(segment: Segment, first: int, last: int) -> tuple[int, int]:
    """The tokens of a run of sentences of a segment: the first, and the one after the last."""
    begin, end = segment.sentences[first], segment.sentences[last]
    return int(begin["first_token"]), int(end["first_token"]) + int(end["n_tokens"])


def token_bounds(segment: Segment, first: int, last: int) -> list[tuple[int, int]]:
    """Where the tokens of a run of sentences of a document start and end, in its characters."""
    text, offset = segment.text(first, last), int(segment.sentences[first]["start"])
    # Token ends are not stored: a token ends at the next one's start, less white space. Tokens of
    # byte-level vocabularies begin with the space before a word, the first also before the text.
    starts = np.maximum(segment.token_starts(first, last).astype(np.int64) - offset, 0)
    ends = np.append(starts[1:], len(text))
    bounds = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        piece = text[start:end]
        begin = offset + end - len(piece.lstrip())
        bounds.append((begin, begin + len(piece.strip())))
    return bounds
