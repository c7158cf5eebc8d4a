"""The second look: a reranker reads the best sentences of a search together with the question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from s3_retriever.document import title_of
from s3_retriever.search.fusion import rounded
from s3_retriever.search.judging import Measures, judged, verdict
from s3_retriever.search.parts import Ask, Steps, together
from s3_retriever.search.ranking import Ranking
from s3_retriever.search.selection import BestFirst, Here, Limits, pick
from s3_retriever.types import Scores

# What the second look adds to a score for each standard deviation, in units of the standard
# deviation of the candidates' own scores; see docs/research-log.md.
_WEIGHT = 0.5


class Passage(NamedTuple):
    """A sentence as a reranker reads it.

    Attributes:
        document_id: The document's id.
        title: Its title; empty if it has none.
        start: Offset of the sentence in the document.
        text: The sentence.
    """

    document_id: str
    title: str
    start: int
    text: str


class PassageReader(Protocol):
    """Scores passages for a question by reading them; `rerank.Reranker` is one."""

    def scores(self, question: str, passages: Sequence[Passage]) -> Scores:
        """Score passages, best first as found; float64 [n], higher is better."""


@dataclass(frozen=True, slots=True)
class SecondLook:
    """Which sentences are read again, and by what.

    Attributes:
        candidates: How many of the best.
        reader: Reads them.
    """

    candidates: int
    reader: PassageReader

    def at(self, question: str) -> Callable[[list[Candidates]], list[Scores]]:
        """What answers the parts of a search that ask for a second look."""

        def look(parts: list[Candidates]) -> list[Scores]:
            scores = np.concatenate([part.scores for part in parts])
            best = np.argsort(-scores, kind="stable")[: self.candidates]
            every = [passage for part in parts for passage in part.passages]
            gains = np.zeros(len(scores))
            if len(best):
                seen = self.reader.scores(question, [every[number] for number in best])
                gains[best] = gain(scores[best], seen)
            ends = np.cumsum([len(part.scores) for part in parts])
            # What is not read stays behind what is.
            return np.split(gains, ends[:-1])

        return look


class Candidates(NamedTuple):
    """The best sentences of a part.

    Attributes:
        scores: Falling, float64 [n].
        passages: What a reranker reads of them.
    """

    scores: Scores
    passages: list[Passage]


def gain(scores: Scores, seen: Scores) -> Scores:
    """What a second look adds to the scores of the sentences that are read, at least 0.

    Args:
        scores: Their scores [n].
        seen: What the reranker scores them [n].
    """
    # What a host in half precision cannot hold says nothing.
    spread = float(seen.std()) if np.isfinite(seen).all() else 0.0
    if spread == 0.0:
        return np.zeros(len(scores))
    unit = float(scores.std()) or 1.0
    return rounded(_WEIGHT * unit * (seen - seen.min()) / spread)


def look_again(
    ranking: Ranking, own: Measures, candidates: int, min_relevance: float
) -> Steps[Ranking]:
    """Add to the scores of the best sentences of a part what a second look at them says.

    They stay ahead of all others. Relevance goes on following the scores before.

    Args:
        ranking: The part, which is not judged yet.
        own: What it adds to the judgement.
        candidates: How many sentences are read, of all parts together.
        min_relevance: Sentences of a lower relevance are not read.
    """
    known = yield from together(verdict, own)
    view = Here(judged(ranking, known))
    numbers = np.array(_best(view, candidates, min_relevance), dtype=np.int64)
    passages = [
        _passage(ranking, number, text)
        for number, text in zip(numbers.tolist(), view.all_texts(numbers), strict=True)
    ]
    gains: Scores = yield Ask(None, Candidates(ranking.scores[numbers], passages), each=True)
    added = np.zeros(len(ranking.scores))
    added[numbers] = gains
    contributions = ranking.contributions
    if contributions:
        contributions = {**contributions, "rerank": added}
    return replace(
        ranking,
        scores=rounded(ranking.scores + added),
        contributions=contributions,
        first_scores=ranking.scores,
    )


def _best(view: Here, count: int, min_relevance: float) -> list[int]:
    if view.best_relevance < min_relevance:
        return []
    picks = pick(
        BestFirst(view),
        view,
        Limits(unique=False),
        wanted=lambda number: view.relevance(number) >= min_relevance,
    )
    return [each.peak for each in islice(picks, count)]


def _passage(ranking: Ranking, number: int, text: str) -> Passage:
    _, segment, ordinal = ranking.snapshot.locate(number)
    sentence = segment.sentences[ordinal]
    row = segment.document(int(sentence["document"]))
    return Passage(row.id, title_of(row.metadata), int(sentence["start"]), text)
