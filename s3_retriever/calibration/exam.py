"""`Exam`: how well recipes find the evidence of questions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from s3_retriever.calibration.reading import OnceEncoder, with_all_taps
from s3_retriever.calibration.recall import evidence_recall
from s3_retriever.calibration.sample import LabelledQuestion, Sample
from s3_retriever.engine import S3Index
from s3_retriever.engine.questions import rank_question
from s3_retriever.index import Snapshot, Store
from s3_retriever.recipe import Recipe
from s3_retriever.search.filtering import candidates
from s3_retriever.search.sentences import Sentences
from s3_retriever.search.spans import select


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
