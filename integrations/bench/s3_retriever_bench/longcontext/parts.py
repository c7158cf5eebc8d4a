"""The parts of a run, each measured unless it was before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from tqdm.auto import tqdm

from s3_retriever_bench.longcontext.answering import Answerer
from s3_retriever_bench.longcontext.measuring import Asked
from s3_retriever_bench.longcontext.needles import Haystack, make_haystack
from s3_retriever_bench.longcontext.plan import Plan
from s3_retriever_bench.longcontext.probing import probe
from s3_retriever_bench.longcontext.reading import ReadContext, Tools
from s3_retriever_bench.longcontext.samples import Sample
from s3_retriever_bench.store import Store


class Parts:
    """The parts of a run: a question, or a haystack, with a method.

    Args:
        plan: What to measure.
        methods: With what.
        tools: What the methods share.
        answerer: Answers; None where the host cannot generate.
        store: What is finished.
    """

    def __init__(
        self,
        plan: Plan,
        methods: Sequence[str],
        tools: Tools,
        answerer: Answerer | None,
        store: Store,
    ) -> None:
        self._plan = plan
        self._methods = methods
        self._tools = tools
        self._answerer = answerer
        self._store = store

    def questions(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The figures of each method in columns, and `context_tokens`."""
        parts: dict[str, list[dict[str, Any]]] = {method: [] for method in self._methods}
        total = len(samples) * len(self._methods)
        with _bar(total, "Questions", "answer") as bar:
            for sample in samples:
                with ReadContext(sample.context, self._tools) as context:
                    asked = Asked(sample, context, self._answerer)
                    for method in self._methods:
                        bar.set_postfix_str(f"{sample.task.name}, {method}")
                        parts[method].append(self._question(sample, asked, method))
                        bar.update()
        first = next(iter(parts.values()))
        return {
            "context_tokens": [part["context_tokens"] for part in first],
            **{method: _columns(found) for method, found in parts.items()},
        }

    def needles(self, texts: Mapping[int, str]) -> dict[str, Any]:
        """By length and method, the share of needles that was found at each depth.

        Args:
            texts: Haystacks by their length in tokens.
        """
        plan = self._plan
        parts: dict[str, dict[str, list[dict[str, Any]]]] = {}
        total = len(texts) * plan.needles * len(self._methods)
        with _bar(total, "Needles", "haystack") as bar:
            for length, text in texts.items():
                for number in range(plan.needles):
                    made = make_haystack(text, plan.depths, number, plan.seed)
                    with ReadContext(made.text, self._tools) as context:
                        for method in self._methods:
                            bar.set_postfix_str(f"{length:,} tokens, {method}")
                            found = self._needle(length, number, made, context, method)
                            parts.setdefault(str(length), {}).setdefault(method, []).append(found)
                            bar.update()
        return {
            length: {method: _depths(found) for method, found in by_method.items()}
            for length, by_method in parts.items()
        }

    def _question(self, sample: Sample, asked: Asked, method: str) -> dict[str, Any]:
        return self._part(
            f"{sample.task.name}-{sample.digest}",
            method,
            sample.digest,
            lambda: asked.measure(method, self._plan.budgets),
        )

    def _needle(
        self, length: int, number: int, made: Haystack, context: ReadContext, method: str
    ) -> dict[str, Any]:
        budget, answerer = self._plan.needle_budget, self._answerer
        return self._part(
            f"needle-{length}-{number}",
            method,
            digest_of(repr(made)),
            lambda: probe(made, context, method, budget, answerer),
        )

    def _part(
        self, name: str, method: str, digest: str, measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        found = self._store.get(name, method, digest)
        if found is None:
            found = measure()
            self._store.put(name, method, digest, found)
        return found


def digest_of(text: str) -> str:
    """Tells a text from others."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _bar(total: int, what: str, unit: str) -> tqdm[NoReturn]:
    """A progress bar, in a terminal and where there is something to do."""
    return tqdm(total=total, desc=what, unit=unit, disable=None if total else True)


def _columns(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Values of each question as columns, None where a question has no such value."""
    names = ("tokens", "seconds", "recall", "score", "nll", "kl", "failed")
    budgets = parts[0]["budgets"] if parts else ()
    return {
        "prepare_seconds": [part["prepare_seconds"] for part in parts],
        "budgets": {
            budget: {name: [part["budgets"][budget].get(name) for part in parts] for name in names}
            for budget in budgets
        },
    }


def _depths(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the needles of each depth, None where one was not asked for."""
    return {
        name: [
            None if None in values else sum(values) / len(values)
            for values in zip(*(part[name] for part in parts), strict=True)
        ]
        for name in ("found", "answered")
    } | {"failed": next((part["failed"] for part in parts if part["failed"]), None)}
