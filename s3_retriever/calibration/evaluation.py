"""How well recipes find the evidence of questions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from s3_retriever.calibration.questions import GoldSpan, LabelledQuestion, Sample
from s3_retriever.encoder.caching import OnceEncoder, with_all_taps
from s3_retriever.engine import S3Index
from s3_retriever.index import Snapshot, Store
from s3_retriever.progress import Bar
from s3_retriever.recipe import Recipe
from s3_retriever.search import rank, select

# Evidence counts as found when pieces cover this share of its characters: sentence boundaries of
# the labels and of the index may differ by an abbreviation or a quotation mark.
_COVERED = 0.8


class Located(Protocol):
    """A piece of a document that something found; `Span` is one."""

    @property
    def document_id(self) -> str:
        """The document's id."""

    @property
    def start(self) -> int:
        """Offset of the first character in the document."""

    @property
    def end(self) -> int:
        """Offset after the last one."""


def evidence_recall(evidence: Sequence[GoldSpan], found: Sequence[Located]) -> float:
    """Share of the evidence that was found.

    A sentence is found when the pieces cover 80 % of its characters; what is labelled as a whole
    (a paragraph, a section, a turn: `any_part`) when any part of it is.
    """
    hits = [_is_found(part, found) for part in evidence]
    return sum(hits) / len(hits)


def overlap(evidence: GoldSpan, piece: Located) -> int:
    """Characters of the evidence that a piece covers."""
    if piece.document_id != evidence.document_id:
        return 0
    return max(0, min(piece.end, evidence.end) - max(piece.start, evidence.start))


def _is_found(evidence: GoldSpan, found: Sequence[Located]) -> bool:
    covered = sum(overlap(evidence, piece) for piece in found)
    if evidence.any_part:
        return covered > 0
    return covered >= _COVERED * (evidence.end - evidence.start)


# Of the standard errors on either side of a mean, for 95 %.
_INTERVAL = 1.96


@dataclass(frozen=True, slots=True)
class Gain:
    """The mean of paired differences and its standard error."""

    mean: float
    error: float

    @classmethod
    def between(cls, before: NDArray[np.float64], after: NDArray[np.float64]) -> Gain:
        """The gain from `before` [n] to `after` [n], of the same questions."""
        difference = after - before
        error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
        return cls(float(difference.mean()), error)

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.mean - _INTERVAL * self.error

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.mean + _INTERVAL * self.error

    def exceeds(self, errors: float) -> bool:
        """Whether it is above zero by more than so many standard errors."""
        return self.mean > max(errors * self.error, 0.0)


class Asked(NamedTuple):
    """A question and the place of its sample."""

    sample: int
    question: LabelledQuestion


class Evaluator:
    """Measures recipes on indexes of the samples, made when first needed, with all taps.

    A context manager; the indexes vanish at its end.

    Args:
        encoder: Reads documents and questions, each once.
        samples: What is searched.
        token_budgets: Recall is the mean over these. With a single budget a question's recall
            moves in steps as large as a piece of evidence, and a better rank that does not cross
            the budget counts for nothing.
        bar: Moves by one for every question that is asked.
    """

    def __init__(
        self,
        encoder: OnceEncoder,
        samples: Sequence[Sample],
        token_budgets: Sequence[int],
        bar: Bar,
    ) -> None:
        self._encoder = encoder
        self._samples = samples
        self._token_budgets = token_budgets
        self._bar = bar
        self._snapshots: dict[tuple[object, ...], Snapshot] = {}
        self._open = ExitStack()

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def recalls(self, recipe: Recipe, asked: Sequence[Asked]) -> NDArray[np.float64]:
        """The evidence recall of each question [n] in mode `hybrid`, mean of the budgets."""
        recalls = np.zeros(len(asked))
        for place, (sample, question) in enumerate(asked):
            recalls[place] = self._recall(recipe, self._snapshot(sample, recipe), question)
            self._bar.update(1)
        return recalls

    def _recall(self, recipe: Recipe, snapshot: Snapshot, question: LabelledQuestion) -> float:
        ranking = rank(snapshot, question.text, recipe, self._encoder, "hybrid", snapshot.live)
        recalls = [
            evidence_recall(
                question.evidence,
                select(ranking, recipe, k=None, token_budget=budget, order="score"),
            )
            for budget in self._token_budgets
        ]
        return sum(recalls) / len(recalls)

    def _snapshot(self, sample: int, recipe: Recipe) -> Snapshot:
        whole = with_all_taps(recipe, self._encoder.codebook, "same")
        key = (sample, recipe.advanced.doc_top_k, whole.sentence_layer)
        if key not in self._snapshots:
            store = Store.create(None, {})
            index = S3Index(store, self._encoder, whole)
            self._open.enter_context(index)
            index.add(self._samples[sample].documents, progress=False)
            self._snapshots[key] = store.snapshot()
        return self._snapshots[key]


def split(samples: Sequence[Sample], seed: int) -> tuple[list[Asked], list[Asked]]:
    """Halve the questions, each taken once, by a hash: their order does not matter."""
    asked = {
        Asked(n, question) for n, sample in enumerate(samples) for question in sample.questions
    }

    def digest(question: Asked) -> bytes:
        return hashlib.sha256(f"{seed} {question}".encode()).digest()

    mixed = sorted(asked, key=digest)
    middle = len(mixed) // 2
    return mixed[:middle], mixed[middle:]
