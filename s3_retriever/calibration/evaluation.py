"""How well recipes find the evidence of questions."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from s3_retriever.calibration.questions import Evidence, LabelledQuestion, Sample
from s3_retriever.codebook import Codebook
from s3_retriever.encoder import CachingEncoder, Encoder, TokenFeatures
from s3_retriever.encoder.encoder import QuestionFeatures
from s3_retriever.engine import S3Index
from s3_retriever.host import Host
from s3_retriever.host.taps import Tap
from s3_retriever.index import Snapshot, Store
from s3_retriever.index.snapshot import Sentences
from s3_retriever.recipe import QuerySide, Recipe, SentenceRecipe, TapRecipe
from s3_retriever.search.filtering import candidates
from s3_retriever.search.pipeline import rank_question
from s3_retriever.search.selection import select

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


def evidence_recall(evidence: Sequence[Evidence], found: Sequence[Located]) -> float:
    """Share of the evidence that was found.

    A sentence is found when the pieces cover 80 % of its characters; what is labelled as a whole
    (a paragraph, a section, a turn: `any_part`) when any part of it is.
    """
    hits = [_is_found(part, found) for part in evidence]
    return sum(hits) / len(hits)


def overlap(evidence: Evidence, piece: Located) -> int:
    """Characters of the evidence that a piece covers."""
    if piece.document_id != evidence.document_id:
        return 0
    return max(0, min(piece.end, evidence.end) - max(piece.start, evidence.start))


def _is_found(evidence: Evidence, found: Sequence[Located]) -> bool:
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


_Features = dict[str, QuestionFeatures]

# Features of documents that are kept at most, in tokens times taps.
_CACHED_TOKENS = 2_000_000
# Questions that are kept at most.
_CACHED_QUESTIONS = 4_096


class OnceEncoder(CachingEncoder):
    """Reads all taps of the codebook at once, and gives each recipe what it asks for.

    A document is read with as many features as the SAEs have; as they come strongest first, the
    first `document_k` of them are what it has with less.
    """

    def __init__(self, host: Host, codebook: Codebook) -> None:
        super().__init__(host, codebook, _CACHED_TOKENS // len(codebook.saes))
        self._read: OrderedDict[tuple[str, QuerySide, int, str], _Features] = OrderedDict()

    def documents(
        self, texts: Iterable[tuple[str, str]], recipe: Recipe
    ) -> Iterator[TokenFeatures]:
        """As `Encoder.documents`."""
        k = max(sae.k for sae in self.codebook.saes.values())
        whole = with_all_taps(recipe, self.codebook, "same").model_copy(update={"document_k": k})
        for found in super().documents(texts, whole):
            strongest = {name: found.features[name][:, : recipe.document_k] for name in recipe.taps}
            yield replace(found, features=strongest)

    def question(self, text: str, recipe: Recipe) -> _Features:
        """As `Encoder.question`."""
        sides = {part.query_side for part in recipe.taps.values()}
        read = {side: self._question_from(side, text, recipe) for side in sides}
        found = {name: read[part.query_side][name] for name, part in recipe.taps.items()}
        if recipe.sentence:
            found[recipe.sentence.tap] = read[min(sides)][recipe.sentence.tap]
        return found

    def _question_from(self, side: QuerySide, text: str, recipe: Recipe) -> _Features:
        """Features of a question at all taps that can be read from a side."""
        whole = with_all_taps(recipe, self.codebook, side)
        key = (text, side, recipe.query_k, whole.tap_names[-1])
        if key not in self._read:
            self._read[key] = Encoder.question(self, text, whole)
            if len(self._read) > _CACHED_QUESTIONS:
                self._read.popitem(last=False)
        return self._read[key]


def with_all_taps(recipe: Recipe, codebook: Codebook, side: QuerySide) -> Recipe:
    """A recipe with all taps of a codebook that a question can be compared with from a side."""
    taps = [tap for tap in codebook.saes if side in query_sides(tap)]
    deepest = codebook.sentence_tap
    update = {
        "taps": {str(tap): TapRecipe(query_side=side) for tap in taps},
        "sentence": recipe.sentence or (SentenceRecipe(tap=str(deepest)) if deepest else None),
    }
    return recipe.model_copy(update=update)


def query_sides(tap: Tap) -> tuple[QuerySide, ...]:
    """What a question can be read from, to be compared with a tap."""
    return ("same", "query") if tap.site == "key" else ("same",)


class Asked(NamedTuple):
    """A question and the place of its sample."""

    sample: int
    question: LabelledQuestion


class Exam:
    """Indexes of the samples, with all taps of the codebook, made when first needed.

    A context manager; the indexes vanish at its end.

    Args:
        encoder: Reads documents and questions, each once.
        samples: What is searched.
        budgets: Token budgets. Recall is their mean: with one budget a question's recall moves in
            steps as large as a piece of evidence, and a better rank that does not cross the
            budget counts for nothing.
        bar: Moves by one for every question that was asked.
    """

    def __init__(
        self,
        encoder: OnceEncoder,
        samples: Sequence[Sample],
        budgets: Sequence[int],
        bar: tqdm[Any],
    ) -> None:
        self._encoder = encoder
        self._samples = samples
        self._budgets = budgets
        self.bar = bar
        self._snapshots: dict[tuple[int, int, str], Snapshot] = {}
        self._open = ExitStack()

    def __enter__(self) -> Exam:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def recalls(self, recipe: Recipe, asked: Sequence[Asked]) -> NDArray[np.float64]:
        """The evidence recall of each question [n] in mode `hybrid`, mean of the budgets."""
        found = np.zeros(len(asked))
        for place, (sample, question) in enumerate(asked):
            found[place] = self._recall(recipe, self._snapshot(sample, recipe), question)
            self.bar.update()
        return found

    def _recall(self, recipe: Recipe, snapshot: Snapshot, question: LabelledQuestion) -> float:
        allowed = candidates(Sentences.of(snapshot), None)
        ranking = rank_question(
            self._encoder, snapshot, question.text, recipe, "hybrid", allowed
        ).ranking
        recalls = [
            evidence_recall(
                question.evidence,
                select(ranking, recipe, k=None, token_budget=budget, order="score"),
            )
            for budget in self._budgets
        ]
        return sum(recalls) / len(recalls)

    def _snapshot(self, sample: int, recipe: Recipe) -> Snapshot:
        whole = with_all_taps(recipe, self._encoder.codebook, "same")
        key = (sample, recipe.document_k, whole.tap_names[-1])
        if key not in self._snapshots:
            store = Store.create(None, {})
            index = S3Index(store, self._encoder, whole)
            self._open.enter_context(index)
            index.add(self._samples[sample].documents, progress=False)
            self._snapshots[key] = store.snapshot()
        return self._snapshots[key]


def halves(samples: Sequence[Sample], seed: int) -> tuple[list[Asked], list[Asked]]:
    """Split all questions, each taken once, by a hash, so that their order does not matter."""
    asked = {
        Asked(n, question) for n, sample in enumerate(samples) for question in sample.questions
    }

    def digest(one: Asked) -> bytes:
        return hashlib.sha256(f"{seed} {one}".encode()).digest()

    mixed = sorted(asked, key=digest)
    middle = len(mixed) // 2
    return mixed[:middle], mixed[middle:]
