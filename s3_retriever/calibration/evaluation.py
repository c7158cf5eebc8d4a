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

# Share of its characters that must be covered for evidence to count as found: the sentence
# boundaries of labels and index may differ by an abbreviation or a quotation mark.
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


# Most features of documents that are cached, in tokens times taps.
_CACHED_TOKENS = 2_000_000
# Most questions that are cached.
_CACHED_QUESTIONS = 4_096


class OnceEncoder(CachingEncoder):
    """Reads all taps of the codebook at once and hands each recipe the part that it asks for.

    A document is read with as many features as the SAEs keep. They come strongest first, so a
    recipe with a smaller `doc_top_k` takes the first of them.
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
        """A question as read at all taps that have a side."""
        whole = with_all_taps(recipe, self.codebook, side)
        key = (text, side, recipe.advanced.query_top_k, whole.sentence)
        if key not in self._read:
            self._read[key] = Encoder.question(self, text, whole)
            if len(self._read) > _CACHED_QUESTIONS:
                self._read.popitem(last=False)
        return self._read[key]


def with_all_taps(recipe: Recipe, codebook: Codebook, side: QuerySide) -> Recipe:
    """A recipe with all taps of a codebook that questions can be read for on a side."""
    taps = [tap for tap in codebook.saes if side in query_sides(tap)]
    layer = codebook.sentence_layer
    sentence = recipe.sentence or (None if layer is None else SentenceRecipe(layer=layer))
    every = {str(tap): TapRecipe(query_side=side) for tap in taps}
    return recipe.changed("taps", every).changed("sentence", sentence)


def query_sides(tap: Tap) -> tuple[QuerySide, ...]:
    """The sides from which a question can be read for a tap."""
    return ("same", "query") if tap.site == "key" else ("same",)


class Asked(NamedTuple):
    """A question and the index of its sample."""

    sample: int
    question: LabelledQuestion


class Evaluator:
    """Measures recipes on indexes of the samples, made when first needed, with all taps.

    A context manager; it closes the indexes at its end.

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
    """Halve the distinct questions by a hash, so that their order does not matter."""
    asked = {
        Asked(n, question) for n, sample in enumerate(samples) for question in sample.questions
    }

    def digest(question: Asked) -> bytes:
        return hashlib.sha256(f"{seed} {question}".encode()).digest()

    mixed = sorted(asked, key=digest)
    middle = len(mixed) // 2
    return mixed[:middle], mixed[middle:]
