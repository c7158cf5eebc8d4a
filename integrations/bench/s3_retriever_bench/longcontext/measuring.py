"""One method on one question, under every budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from s3_retriever.errors import HostError
from s3_retriever_bench.longcontext.answering import Answerer, Belief
from s3_retriever_bench.longcontext.metrics import holds_answer, score
from s3_retriever_bench.longcontext.reading import ReadContext
from s3_retriever_bench.longcontext.samples import Sample

_DIGITS = 5


class Asked:
    """A question about a context that is asked with several methods.

    Args:
        sample: The question.
        context: Its context.
        answerer: Answers; None where the host cannot generate.
    """

    def __init__(self, sample: Sample, context: ReadContext, answerer: Answerer | None) -> None:
        self._sample = sample
        self._context = context
        self._answerer = answerer
        self._beliefs: dict[str, Belief] = {}

    def measure(self, method: str, budgets: Sequence[int]) -> dict[str, Any]:
        """Ask with a method.

        Args:
            method: One of `reading.METHODS`.
            budgets: Tokens of evidence.

        Returns:
            JSON values. `context_tokens`, `prepare_seconds`, and under `budgets` for each budget
            (for `full` the only one, `full`): `tokens` of the evidence, `seconds` of finding it,
            `recall` (1 where a gold answer's words are in it, else 0; None where they are not in
            the context) and, where the host answers, `answer`, `score`, `nll`, `kl` (None where
            the whole context is too long), or `failed`, why it was not asked.
        """
        prepared = self._context.prepare(method)
        named = {"full": 0} if method == "full" else {str(budget): budget for budget in budgets}
        return {
            "context_tokens": self._context.tokens,
            "prepare_seconds": round(prepared, _DIGITS),
            "budgets": {name: self._ask(method, budget) for name, budget in named.items()},
        }

    def _ask(self, method: str, budget: int) -> dict[str, Any]:
        sample = self._sample
        began = time.perf_counter()
        evidence = self._context.evidence(method, sample.question, budget)
        seconds = time.perf_counter() - began
        held = holds_answer(evidence, sample.answers) if self._answerable else None
        return {
            "tokens": self._context.count(evidence),
            "seconds": round(seconds, _DIGITS),
            "recall": None if held is None else float(held),
            **self._answer(f"{sample.before}{evidence}"),
        }

    def _answer(self, context: str) -> dict[str, Any]:
        if self._answerer is None:
            return {}
        sample, task = self._sample, self._sample.task
        tokens = self._answerer.length(context, sample.after)
        failed = self._answerer.too_long(tokens, task.new_tokens)
        if failed:
            return {"failed": failed}
        try:
            answer = self._answerer.answer(context, sample.after, task.new_tokens)
            belief = self._believe(context)
        except HostError:
            return {"failed": "out of memory"}
        kl = None if self._whole is None else self._whole.divergence(belief)
        return {
            "answer": answer,
            "score": round(score(task, answer, sample.answers), _DIGITS),
            "nll": round(belief.nll, _DIGITS),
            "kl": None if kl is None else round(kl, _DIGITS),
        }

    def _believe(self, context: str) -> Belief:
        assert self._answerer is not None
        sample = self._sample
        # Methods that leave the same of a context are read once.
        if context not in self._beliefs:
            self._beliefs[context] = self._answerer.believe(
                context, sample.after, sample.answers[0], sample.task.new_tokens
            )
        return self._beliefs[context]

    @property
    def _beginning(self) -> str:
        """The prompt up to the end of the whole context."""
        return f"{self._sample.before}{self._sample.context}"

    @cached_property
    def _answerable(self) -> bool:
        return bool(holds_answer(self._context.text, self._sample.answers))

    @cached_property
    def _whole(self) -> Belief | None:
        """What the host makes of the whole context; None where that is too long."""
        assert self._answerer is not None
        sample = self._sample
        tokens = self._answerer.length(self._beginning, sample.after)
        if self._answerer.too_long(tokens, sample.task.new_tokens):
            return None
        try:
            return self._believe(self._beginning)
        except HostError:
            return None
