"""Evidence recall under a token budget, for methods side by side."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from s3_retriever.bench.datasets import Context, build_contexts, load_questions
from s3_retriever.bench.metrics import answer_recall, evidence_recall
from s3_retriever.codebook import CachingEncoder, Codebook
from s3_retriever.engine import S3Index
from s3_retriever.host import Host
from s3_retriever.index import Store
from s3_retriever.recipe import Recipe
from s3_retriever.search import Mode

_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Method:
    """A way to search: a mode under a recipe."""

    name: str
    mode: Mode
    recipe: Recipe


@dataclass(slots=True)
class Measured:
    """Values of one method on one set under one budget, one for each question.

    Attributes:
        evidence: Evidence recall.
        answer: Whether an answer's string is in the spans.
    """

    evidence: list[float] = field(default_factory=list)
    answer: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Means, and the bootstrap 95 % interval of evidence recall."""
        low, high = _interval(self.evidence)
        return {
            "questions": len(self.evidence),
            "evidence_recall": _mean(self.evidence),
            "low": low,
            "high": high,
            "answer_recall": _mean(self.answer),
        }


def methods(codebook: Codebook) -> list[Method]:
    """BM25 alone, and both recipes in the modes `s3` and `hybrid`."""
    default = codebook.named_recipe("default")
    chosen = [
        Method("bm25", "bm25", default),
        Method("s3 default", "s3", default),
        Method("hybrid default", "hybrid", default),
    ]
    if any(tap.site == "key" for tap in codebook.saes):
        paper = codebook.named_recipe("paper")
        chosen += [Method("s3 paper", "s3", paper), Method("hybrid paper", "hybrid", paper)]
    return chosen


def run_quality(
    files: Sequence[Path],
    *,
    host: str,
    codebook: Codebook,
    budgets: Sequence[int],
    paragraphs: int,
    questions: int | None,
    seed: int,
) -> dict[str, Any]:
    """Measure all methods.

    Args:
        files: Question sets; see `load_questions`.
        host: Name of the host.
        codebook: Its codebook.
        budgets: Token budgets.
        paragraphs: Paragraphs of a context.
        questions: Questions of a set at most; all where None.
        seed: Of the contexts.

    Returns:
        JSON values: the settings and, by set, method and budget, what `Measured.summary` says.
    """
    encoder = CachingEncoder(Host.load(host, layers=codebook.depth), codebook)
    compared = methods(codebook)
    results = {}
    for path in files:
        contexts = build_contexts(load_questions(path), paragraphs, questions, seed)
        measured = _measure(contexts, compared, budgets, encoder, path.stem)
        results[path.stem] = {
            name: {str(budget): values.summary() for budget, values in by_budget.items()}
            for name, by_budget in measured.items()
        }
    return {
        "host": host,
        "codebook": codebook.identity,
        "paragraphs": paragraphs,
        "seed": seed,
        "budgets": list(budgets),
        "results": results,
    }


def _measure(
    contexts: Sequence[Context],
    compared: Sequence[Method],
    budgets: Sequence[int],
    encoder: CachingEncoder,
    label: str,
) -> Mapping[str, dict[int, Measured]]:
    measured = {method.name: {budget: Measured() for budget in budgets} for method in compared}
    for context in tqdm(contexts, desc=label, unit="question", disable=None):
        with _Indexes(encoder, context) as indexes:
            for method in compared:
                for budget in budgets:
                    spans = indexes.of(method.recipe).search(
                        context.question.text, mode=method.mode, token_budget=budget
                    )
                    values = measured[method.name][budget]
                    values.evidence.append(evidence_recall(context, spans))
                    values.answer.append(answer_recall(context, spans))
    return measured


class _Indexes:
    """Indexes of one context, one for each recipe; gone at the end."""

    def __init__(self, encoder: CachingEncoder, context: Context) -> None:
        self._encoder = encoder
        self._context = context
        self._made: dict[str, S3Index] = {}

    def of(self, recipe: Recipe) -> S3Index:
        if recipe.name not in self._made:
            index = S3Index(Store.create(None, {}), self._encoder, recipe)
            index.add(self._context.documents, progress=False)
            self._made[recipe.name] = index
        return self._made[recipe.name]

    def __enter__(self) -> _Indexes:
        return self

    def __exit__(self, *exception: object) -> None:
        for index in self._made.values():
            index.close()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mean."""
    generator = random.Random(0)  # noqa: S311 - no secret
    means = sorted(_mean(generator.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES)]
