"""Long contexts: the same model answers from what several methods keep of them.

Questions come from LongBench or files in its form. Needles are made-up facts at known depths of a
text about something else: Kamradt's "Needle In A Haystack" (2023) with several facts in one text,
as in RULER's multi-key variant (arXiv 2404.06654), where each is asked for and the others distract.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from s3_retriever import (
    Codebook,
    CodebookError,
    Document,
    Host,
    HostError,
    InputError,
    LongContext,
)
from s3_retriever.calibration.question_sets import Choice
from s3_retriever.engine import find_codebook
from s3_retriever.types import Split
from s3_retriever_bench.longcontext.answering import Answerer, Asked
from s3_retriever_bench.longcontext.evidence import CACHED, FORMS, METHODS, ReadContext, Tools
from s3_retriever_bench.longcontext.longbench import TASKS, Sample, choose, read_samples
from s3_retriever_bench.longcontext.needles import make_haystack, probe
from s3_retriever_bench.longcontext.report import longcontext_claims
from s3_retriever_bench.shared.corpus import source_files, text_of
from s3_retriever_bench.shared.report import check
from s3_retriever_bench.shared.storage import (
    Part,
    Store,
    check_names,
    codebook_settings,
    host_settings,
    text_digest,
)

_ALL_METHODS = (*METHODS, CACHED, *FORMS)
_BUDGETS = (512, 1024, 2048)
_LENGTHS = (4_096, 8_192, 16_384, 32_768, 65_536)
_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_COLUMNS = (
    *("tokens", "seconds", "recall", "score", "contained", "nll", "kl"),
    *("first_token_seconds", "peak_bytes", "failed"),
)
_VERSIONS = ("s3-retriever", "torch", "transformers", "sentence-transformers", "faiss-cpu")
# The methods that need a host that generates: an encoder finds evidence, and so does MiniLM.
_FOR_DECODERS = ("full", "hybrid-minilm", CACHED)
_WARM_UP_BUDGET = 16
_WARM_UP = Sample(
    task=replace(TASKS["hotpotqa"], new_tokens=2),
    before="",
    documents=(Document(" ".join(f"House {n} on Mill Lane has {n} doors." for n in range(9))),),
    after="\n\nHow many doors has house 7?",
    question="How many doors has house 7?",
    answers=("7",),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of `s3r bench longcontext`.

    `budgets` are tokens of evidence, `lengths` tokens of the haystacks, `depths` positions of the
    needles from 0 (beginning) to 1 (end). Empty sequences mean the defaults.

    Raises:
        InputError: A method is unknown, a depth is out of range, or there is nothing to measure.
    """

    host: str = "minilm"
    codebook: str | None = None
    kv_codebook: str | None = None
    data: Sequence[str] = ()
    tasks: Sequence[str] = ()
    methods: Sequence[str] = ()
    budgets: Sequence[int] = ()
    split: Split = "test"
    paragraphs: int = 60
    questions: int | None = None
    max_context_tokens: int | None = None
    kl: bool = True
    needle: bool = True
    lengths: Sequence[int] = ()
    depths: Sequence[float] = ()
    needles: int = 4
    haystack: Sequence[Path] = ()
    folder: Path | None = None
    fresh: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, sort, and set defaults."""
        check_names(self.methods, _ALL_METHODS, "method")
        if CACHED in self.methods and self.needle:
            raise InputError(f"Method {CACHED!r} is measured on questions alone; add --no-needle.")
        if not all(0 <= depth <= 1 for depth in self.depths):
            raise InputError("A needle's depth must be from 0 (beginning) to 1 (end).")
        if not (self.data or self.tasks or self.needle):
            raise InputError(
                "There is nothing to measure; give questions with --data or --task, or omit "
                "--no-needle."
            )
        chosen = [name for name in _ALL_METHODS if name in (self.methods or METHODS)]
        object.__setattr__(self, "methods", tuple(chosen))
        object.__setattr__(self, "budgets", tuple(sorted(set(self.budgets or _BUDGETS))))
        object.__setattr__(self, "lengths", tuple(sorted(set(self.lengths or _LENGTHS))))
        object.__setattr__(self, "depths", tuple(sorted(set(self.depths or _DEPTHS))))

    @property
    def needle_budget(self) -> int:
        """The budget under which to look for needles: the middle one."""
        return self.budgets[len(self.budgets) // 2]


def run_longcontext(plan: Plan) -> dict[str, Any]:
    """Ask all questions, then look for all needles, with every method.

    Args:
        plan: What to measure. If it has a folder, a run with the same settings resumes there,
            also with more questions, methods or lengths.

    Returns:
        JSON values: `settings`, `machine`, `versions`; `remark`, what is missing and why;
        `questions` (`task`, `group` and `context_tokens` of each); `values` by method
        (`prepare_seconds`, and under `budgets` the columns of `Asked.measure`, a value for each
        question); `needles` by length and method (see `probe`; means over the needles of a
        depth); `claims`.

    Raises:
        InputError: Files are not usable, or the folder has results of other settings.
        S3Error: The host or the codebook is not usable.
    """
    choice = Choice(plan.split, None, plan.paragraphs, None, plan.seed)
    samples = read_samples(plan.data, plan.tasks, choice)
    book = _codebook(plan)
    model = LongContext(plan.host, codebook=book, fallback=None if book else "bm25")
    host = model.host
    answerer = _answerer(host)
    methods = [name for name in plan.methods if answerer or _plain(name) not in _FOR_DECODERS]
    if not methods:
        raise InputError(
            f"Host {plan.host!r} cannot generate, which all chosen methods need; choose another "
            "method with --method, or a causal host."
        )
    fitting = _fitting(samples, plan.max_context_tokens, host)
    chosen = choose(fitting, plan.questions, plan.seed)
    files = source_files(plan.haystack)
    lengths = plan.lengths if plan.needle else ()
    texts = {tokens: text_of(files, tokens, host.tokenizer) for tokens in lengths}
    store = Store(plan.folder, _settings(plan, host, book), plan.fresh)
    run = _Run(plan, methods, Tools(model, book, plan.kv_codebook), answerer, store)
    with store.resumable():
        values, needles = run.questions(chosen), run.needles(texts)
    questions = {
        "task": [sample.task.name for sample in chosen],
        "group": [sample.group for sample in chosen],
        "context_tokens": values.pop("context_tokens"),
    }
    figures = store.figures(
        *_VERSIONS,
        remark=_remark(plan, len(samples) - len(fitting), generates=answerer is not None),
        questions=questions,
        values=values,
        needles=needles,
    )
    return figures | {"claims": check(longcontext_claims(figures))}


def _plain(method: str) -> str:
    """A method without the form of its evidence."""
    return FORMS[method][0] if method in FORMS else method


def _fitting(samples: Sequence[Sample], limit: int | None, host: Host) -> Sequence[Sample]:
    """The samples whose contexts have at most `limit` tokens of a host, if there is a limit."""
    if limit is None:
        return samples
    contexts = {sample.group: sample.context for sample in samples}
    tokens = {group: host.tokenizer.count(context) for group, context in contexts.items()}
    return [sample for sample in samples if tokens[sample.group] <= limit]


def _codebook(plan: Plan) -> Codebook | None:
    """The host's codebook; None if there is none and no method needs it."""
    try:
        return find_codebook(plan.host, plan.codebook)
    except CodebookError:
        if plan.codebook is not None or {"s3", "hybrid"} & set(map(_plain, plan.methods)):
            raise
        return None


def _answerer(host: Host) -> Answerer | None:
    try:
        return Answerer(host)
    except HostError:
        return None


def _remark(plan: Plan, left_out: int, *, generates: bool) -> str:
    """What the figures leave out, and why."""
    remarks = []
    if not generates:
        remarks.append(
            f"Host {plan.host} cannot generate: answers and the methods "
            f"{' and '.join(_FOR_DECODERS[:2])} are left out."
        )
    if left_out:
        remarks.append(
            f"{left_out} questions about contexts of more than {plan.max_context_tokens:,} tokens "
            "are left out."
        )
    return " ".join(remarks)


def _settings(plan: Plan, host: Host, book: Codebook | None) -> dict[str, Any]:
    """Everything that changes the result of a question or a haystack."""
    return {
        "host": plan.host,
        **host_settings(host),
        **codebook_settings(book),
        "budgets": list(plan.budgets),
        "needle_budget": plan.needle_budget,
        "depths": list(plan.depths),
        "split": plan.split,
        "paragraphs": plan.paragraphs,
        "seed": plan.seed,
        # Runs from before the option have read the whole context.
        **({} if plan.kl else {"kl": False}),
    }


class _Run:
    """The parts of a run, each measured unless it was before."""

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
        answers: dict[str, list[dict[str, Any]]] = {method: [] for method in self._methods}
        total = len(samples) * len(self._methods)
        parts = self._store.measured_all(self._asked(samples), total, "Questions", "answer")
        for part, answer in parts:
            answers[part.method].append(answer)
        first = next(iter(answers.values()))
        return {
            "context_tokens": [answer["context_tokens"] for answer in first],
            **{method: _columns(given) for method, given in answers.items()},
        }

    def _asked(self, samples: Sequence[Sample]) -> Iterator[Part]:
        """Every question with each method; a context is read once."""
        for _, same in groupby(samples, key=lambda sample: sample.group):
            about = list(same)
            with ReadContext(about[0].documents, self._tools) as context:
                for sample in about:
                    asked = Asked(sample, context, self._answerer, kl=self._plan.kl)
                    name = f"{sample.task.name}-{sample.digest}"
                    for method in self._methods:
                        measure = partial(self._measure, asked, method)
                        yield Part(name, method, sample.digest, measure)

    def needles(self, texts: Mapping[int, str]) -> dict[str, Any]:
        """By length and method, the share of needles found at each depth.

        Args:
            texts: Haystacks by their length in tokens.
        """
        figures = {}
        for length, text in texts.items():
            found: dict[str, list[dict[str, Any]]] = {method: [] for method in self._methods}
            total = self._plan.needles * len(self._methods)
            what = f"Needles in {length:,} tokens"
            haystacks = self._haystacks(length, text)
            for part, result in self._store.measured_all(haystacks, total, what, "haystack"):
                found[part.method].append(result)
            figures[str(length)] = {method: _depths(results) for method, results in found.items()}
        return figures

    def _haystacks(self, length: int, text: str) -> Iterator[Part]:
        """Every haystack of a length with each method."""
        plan, budget = self._plan, self._plan.needle_budget
        for number in range(plan.needles):
            haystack = make_haystack(text, plan.depths, number, plan.seed)
            digest = text_digest(repr(haystack))
            with ReadContext([Document(haystack.text)], self._tools) as context:
                for method in self._methods:
                    measure = partial(probe, haystack, context, method, budget, self._answerer)
                    yield Part(f"needle-{length}-{number}", method, digest, measure)

    def _measure(self, asked: Asked, method: str) -> dict[str, Any]:
        assert self._warmed_up
        return asked.measure(method, self._plan.budgets)

    @cached_property
    def _warmed_up(self) -> bool:
        """Let every method read and answer once, because first runs load, compile and allocate."""
        with ReadContext(_WARM_UP.documents, self._tools) as context:
            asked = Asked(_WARM_UP, context, self._answerer, kl=self._plan.kl)
            for method in self._methods:
                asked.measure(method, [_WARM_UP_BUDGET])
        return True


def _columns(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Values of each question as columns, None if a question has no such value."""
    budgets = parts[0]["budgets"] if parts else ()
    return {
        "prepare_seconds": [part["prepare_seconds"] for part in parts],
        "budgets": {
            budget: {
                name: [part["budgets"][budget].get(name) for part in parts] for name in _COLUMNS
            }
            for budget in budgets
        },
    }


def _depths(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the needles of each depth, None if some were not asked for."""
    means = {
        kind: [
            None if None in values else sum(values) / len(values)
            for values in zip(*(part[kind] for part in parts), strict=True)
        ]
        for kind in ("found", "answered")
    }
    return {**means, "failed": next((part["failed"] for part in parts if part["failed"]), None)}
