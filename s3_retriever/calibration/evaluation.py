"""How well recipes find the evidence of questions."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from s3_retriever.calibration.questions import GoldSpan, LabelledQuestion, Sample
from s3_retriever.codebook import Codebook
from s3_retriever.encoder import CachingEncoder, Encoder, TokenFeatures
from s3_retriever.engine import S3Index
from s3_retriever.features import EncodedQuestion
from s3_retriever.host import Host
from s3_retriever.host.taps import Tap
from s3_retriever.index import Snapshot, Store
from s3_retriever.progress import Bar
from s3_retriever.recipe import Recipe, SentenceRecipe, TapRecipe
from s3_retriever.search import rank, select
from s3_retriever.types import QuerySide

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


# Features of documents that are kept at most, in tokens times taps.
_CACHED_TOKENS = 2_000_000
# Questions that are kept at most.
_CACHED_QUESTIONS = 4_096


class OnceEncoder(CachingEncoder):
    """Reads all taps of the codebook at once, and gives each recipe what it asks for.

    A document is read with as many features as the SAEs have; as they come strongest first, the
    first `doc_top_k` are those of a smaller number.
    """

    def __init__(self, host: Host, codebook: Codebook) -> None:
        super().__init__(host, codebook, _CACHED_TOKENS // len(codebook.saes))
        self._read: OrderedDict[tuple[object, ...], EncodedQuestion] = OrderedDict()

    def documents(
        self, texts: Iterable[tuple[str, str]], recipe: Recipe
    ) -> Iterator[TokenFeatures]:
        """As `Encoder.documents`."""
        k = max(sae.k for sae in self.codebook.saes.values())
        whole = with_all_taps(recipe, self.codebook, "same").changed("advanced.doc_top_k", k)
        for chunk in super().documents(texts, whole):
            strongest = {
                name: chunk.features[name][:, : recipe.advanced.doc_top_k] for name in recipe.taps
            }
            yield replace(chunk, features=strongest)

    def question(self, text: str, recipe: Recipe) -> EncodedQuestion:
        """As `Encoder.question`."""
        sides = {part.query_side for part in recipe.taps.values()}
        read = {side: self._question_from(side, text, recipe) for side in sides}
        features = {
            name: read[part.query_side].features[name] for name, part in recipe.taps.items()
        }
        return EncodedQuestion(features, read[min(sides)].direction if recipe.sentence else None)

    def _question_from(self, side: QuerySide, text: str, recipe: Recipe) -> EncodedQuestion:
        """Features of a question at all taps that can be read from a side."""
        whole = with_all_taps(recipe, self.codebook, side)
        key = (text, side, recipe.advanced.query_top_k, whole.sentence)
        if key not in self._read:
            self._read[key] = Encoder.question(self, text, whole)
            if len(self._read) > _CACHED_QUESTIONS:
                self._read.popitem(last=False)
        return self._read[key]


def with_all_taps(recipe: Recipe, codebook: Codebook, side: QuerySide) -> Recipe:
    """A recipe with all taps of a codebook that a question can be compared with from a side."""
    taps = [tap for tap in codebook.saes if side in query_sides(tap)]
    layer = codebook.sentence_layer
    sentence = recipe.sentence or (None if layer is None else SentenceRecipe(layer=layer))
    every = {str(tap): TapRecipe(query_side=side) for tap in taps}
    return recipe.changed("taps", every).changed("sentence", sentence)


def query_sides(tap: Tap) -> tuple[QuerySide, ...]:
    """What a question can be read from, to be compared with a tap."""
    return ("same", "query") if tap.site == "key" else ("same",)


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
        key = (sample, recipe.advanced.doc_top_k, whole.sentence and whole.sentence.layer)
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
