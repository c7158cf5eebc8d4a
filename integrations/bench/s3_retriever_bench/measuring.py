"""Running one method on one task."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import accumulate
from typing import Any

from tqdm.auto import tqdm

from s3_retriever.calibration.evaluation import evidence_recall
from s3_retriever.calibration.question_sets import Context, Question, Task
from s3_retriever.document import Document
from s3_retriever_bench.methods import Method, Resources, Searcher
from s3_retriever_bench.metrics import answer_recall, ndcg, reciprocal_rank

# Tokens that preparing is timed on, at most: nothing of them is remembered, so it takes its time.
_TIMED_TOKENS = 20_000


def measure(
    task: Task,
    make: Callable[[Resources], Method],
    shared: Resources,
    budgets: Sequence[int],
    label: str,
) -> dict[str, Any]:
    """Ask a method all questions of a task.

    Args:
        task: The task.
        make: Makes the method.
        shared: What methods share; it remembers texts, which recur among contexts.
        budgets: Token budgets, in ascending order.
        label: Of the progress bar.

    Returns:
        JSON values. A value for each question: `evidence` and `answer` by budget, `ndcg` and
        `mrr` of the ranking under the largest budget, and `search_ms`, the time of the first of
        its searches. For the method: `prepare_seconds_per_1k_tokens`, of the first documents with
        nothing remembered, and `bytes_per_token`, over all contexts.
    """
    budgets = sorted(budgets)
    values = _Values(budgets)
    method = make(shared)
    size = tokens = 0
    count = sum(1 for _ in task.questions())
    with tqdm(total=count, desc=label, unit="question", disable=None) as bar:
        for context in task.contexts:
            tokens += sum(shared.host.tokenizer.count(d.text) for d in context.documents)
            with closing(method.prepare(context.documents)) as searcher:
                size += searcher.size()
                for question in context.questions:
                    values.ask(question, context, searcher)
                    bar.update()
    return {
        "evidence": values.evidence,
        "answer": values.answer,
        "ndcg": values.ndcg,
        "mrr": values.mrr,
        "search_ms": values.search_ms,
        "prepare_seconds_per_1k_tokens": _time_preparing(task, make, shared),
        "bytes_per_token": round(size / tokens, 1),
    }


class _Values:
    """Values of one method, one for each question."""

    def __init__(self, budgets: Sequence[int]) -> None:
        self._budgets = budgets
        self.evidence: dict[str, list[float]] = {str(budget): [] for budget in budgets}
        self.answer: dict[str, list[float | None]] = {str(budget): [] for budget in budgets}
        self.ndcg: list[float] = []
        self.mrr: list[float] = []
        self.search_ms: list[float] = []

    def ask(self, question: Question, context: Context, searcher: Searcher) -> None:
        started = time.perf_counter()
        results = {self._budgets[0]: searcher.search(question.text, self._budgets[0])}
        self.search_ms.append(round(1_000 * (time.perf_counter() - started), 2))
        for budget in self._budgets[1:]:
            results[budget] = searcher.search(question.text, budget)
        for budget, found in results.items():
            self.evidence[str(budget)].append(round(evidence_recall(question.evidence, found), 4))
            self.answer[str(budget)].append(answer_recall(question, context, found))
        ranking = results[self._budgets[-1]]
        self.ndcg.append(round(ndcg(question, ranking), 4))
        self.mrr.append(round(reciprocal_rank(question, ranking), 4))


def _time_preparing(task: Task, make: Callable[[Resources], Method], shared: Resources) -> float:
    documents, tokens = _first_documents(task, shared)
    method = make(shared.emptied())
    started = time.perf_counter()
    searcher = method.prepare(documents)
    seconds = time.perf_counter() - started
    searcher.close()
    return round(1_000 * seconds / tokens, 5)


def _first_documents(task: Task, shared: Resources) -> tuple[Sequence[Document], int]:
    """Documents of the first context, at least one, up to `_TIMED_TOKENS`; and their tokens."""
    documents = task.contexts[0].documents
    totals = accumulate(shared.host.tokenizer.count(document.text) for document in documents)
    chosen, tokens = 0, 0
    for total in totals:
        if chosen and total > _TIMED_TOKENS:
            break
        chosen, tokens = chosen + 1, total
    return documents[:chosen], tokens
