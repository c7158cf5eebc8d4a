"""Evidence recall: how well recipes find the evidence of questions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from s3_retriever.calibration.questions import GoldSpan, LabelledQuestion, Sample
from s3_retriever.document import Document
from s3_retriever.encoder.caching import OnceEncoder, with_all_taps
from s3_retriever.engine.s3index import S3Index, new_store
from s3_retriever.index import Snapshot
from s3_retriever.progress import Bar
from s3_retriever.recipe import Recipe
from s3_retriever.search import Limits, rank, select

# Share of a gold span's characters that must be covered: sentence boundaries of labels and index
# may differ by an abbreviation or a quotation mark.
_COVERED = 0.8


class Located(Protocol):
    """A range of a document, such as a `Span`."""

    @property
    def document_id(self) -> str:
        """The document's id."""

    @property
    def start(self) -> int:
        """Offset of the first character in the document."""

    @property
    def end(self) -> int:
        """Offset after the last character."""


def evidence_recall(evidence: Sequence[GoldSpan], pieces: Sequence[Located]) -> float:
    """The share of the evidence that pieces of documents cover, 0 to 1.

    A gold span counts once the pieces cover 80 % of its characters, or any of them if it is
    labelled `any_part`: a paragraph, a section, a turn.
    """
    hits = [_is_covered(gold, pieces) for gold in evidence]
    return sum(hits) / len(hits)


def overlap(gold: GoldSpan, piece: Located) -> int:
    """How many characters of a gold span a piece covers."""
    if piece.document_id != gold.document_id:
        return 0
    return max(0, min(piece.end, gold.end) - max(piece.start, gold.start))


def _is_covered(gold: GoldSpan, pieces: Sequence[Located]) -> bool:
    covered = sum(overlap(gold, piece) for piece in pieces)
    if gold.any_part:
        return covered > 0
    return covered >= _COVERED * (gold.end - gold.start)


# Standard errors on either side of a mean that hold 95 % of a normal distribution.
_INTERVAL = 1.96


@dataclass(frozen=True, slots=True)
class Gain:
    """A gain in recall: the mean of paired differences and its standard error."""

    mean: float
    error: float

    @classmethod
    def between(cls, before: NDArray[np.float64], after: NDArray[np.float64]) -> Gain:
        """The gain from `before` [n] to `after` [n], the recalls of the same questions."""
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
        """Whether it is above zero by more than a number of standard errors."""
        return self.mean > max(errors * self.error, 0.0)


class Asked(NamedTuple):
    """A question and the index of its sample."""

    sample: int
    question: LabelledQuestion


class Evaluator:
    """Measures recipes on indexes of the samples, which have all taps and are made when needed.

    A context manager that closes the indexes at its end.

    Args:
        encoder: Reads each document and question once.
        samples: What is searched.
        token_budgets: Recall is the mean over these. With a single budget a question's recall
            moves in steps as large as a gold span, and a better rank that does not cross the
            budget counts for nothing.
        bar: Advances by one for every question.
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
        """The evidence recall of each question [n] in mode `hybrid`, averaged over the budgets."""
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
                select(ranking, recipe, Limits(token_budget=budget)),
            )
            for budget in self._token_budgets
        ]
        return sum(recalls) / len(recalls)

    def _snapshot(self, sample: int, recipe: Recipe) -> Snapshot:
        whole = with_all_taps(recipe, self._encoder.codebook, "same")
        key = (sample, recipe.advanced.doc_top_k, whole.sentence_layer)
        if key not in self._snapshots:
            store = new_store(None, self._encoder, whole, None)
            index = S3Index(store, self._encoder, whole)
            self._open.enter_context(index)
            index.add(self._noted(self._samples[sample].documents), progress=False)
            self._bar.set_postfix_str("")
            self._snapshots[key] = store.snapshot()
        return self._snapshots[key]

    def _noted(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Hand documents on, and show how many are scanned: no question advances meanwhile."""
        for n, document in enumerate(documents, 1):
            self._bar.set_postfix_str(f"scanning document {n}")
            yield document


def split(samples: Sequence[Sample], seed: int) -> tuple[list[Asked], list[Asked]]:
    """Halve the distinct questions by a hash, which makes their order irrelevant."""
    asked = {
        Asked(n, question) for n, sample in enumerate(samples) for question in sample.questions
    }

    def digest(question: Asked) -> bytes:
        return hashlib.sha256(f"{seed} {question}".encode()).digest()

    mixed = sorted(asked, key=digest)
    middle = len(mixed) // 2
    return mixed[:middle], mixed[middle:]
