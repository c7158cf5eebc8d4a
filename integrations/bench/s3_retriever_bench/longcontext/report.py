"""The tables, claims and pictures of `longcontext`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

import numpy as np

from s3_retriever_bench.shared.drawing import (
    INK,
    WHOLE,
    binary,
    budget_axis,
    draw_means,
    figure,
    name_points,
    panels,
    remove_rest,
)
from s3_retriever_bench.shared.report import (
    STAR,
    Claim,
    Grid,
    by_budget,
    claims_table,
    digits,
    megabytes,
    rounded,
    share,
    show_run,
    signed,
)
from s3_retriever_bench.shared.statistics import Estimate, Figures, difference, estimate

# A gold answer's words in the evidence, score of the answer, a gold answer's words in the answer,
# NLL of the gold answer, and divergence from what the host expects after the whole context.
Measure = Literal["recall", "score", "contained", "nll", "kl"]
# For the first token: of the first question about a context, and of a further one.
Wait = Literal["first", "further"]
WAITS: Sequence[Wait] = ("first", "further")
MEASURES: Mapping[Measure, str] = {
    "recall": "answer recall",
    "score": "score",
    "contained": "answers that contain the gold answer",
    "nll": "NLL of the gold answer, nats/token",
    "kl": "KL to the whole context, nats",
}


@dataclass(frozen=True, slots=True)
class LongContextSummary:
    """Means, intervals and differences of all methods on the questions of `longcontext`.

    Attributes:
        figures: Figures of the run.
    """

    figures: Mapping[str, Any]

    @property
    def methods(self) -> list[str]:
        """Names of the methods."""
        return list(self.figures["values"])

    @property
    def budgets(self) -> list[int]:
        """Token budgets, ascending."""
        budgets: list[int] = self.figures["settings"]["budgets"]
        return budgets

    @property
    def middle(self) -> int:
        """The budget to show where there is room for one."""
        return self.budgets[len(self.budgets) // 2]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of the questions."""
        return list(dict.fromkeys(self.figures["questions"]["task"]))

    def count(self, task: str | None = None) -> int:
        """Number of questions, of a task or of all."""
        names: list[str] = self.figures["questions"]["task"]
        return len(names) if task is None else names.count(task)

    def measured(self) -> list[Measure]:
        """The measures of which some question has a value."""
        return [
            measure
            for measure in MEASURES
            if any(self._any(method, measure) for method in self.compared(measure))
        ]

    def compared(self, measure: Measure) -> list[str]:
        """The methods that differ in a measure.

        The whole context holds all answers, and does not diverge from itself.
        """
        trivial = measure in ("recall", "kl")
        return [name for name in self.methods if not (trivial and name == "full")]

    def values(self, method: str, budget: int, name: str) -> list[Any]:
        """A value for each question, None if it has none; `full` has no budget."""
        by_budget = self.figures["values"][method]["budgets"]
        column: list[Any] = by_budget.get(str(budget), by_budget.get("full"))[name]
        return column

    def mean(
        self, method: str, budget: int, measure: Measure, task: str | None = None
    ) -> Estimate | None:
        """The mean over the questions, of a task or of all; None if none has a value."""
        column = self.values(method, budget, measure)
        names = self.figures["questions"]["task"]
        mine = [v if task in (None, n) else None for v, n in zip(column, names, strict=True)]
        return estimate(mine, self._groups, self._seed)

    def waits(self, method: str, budget: int, wait: Wait) -> list[float | None]:
        """Seconds to the first token of each question, None if it was not answered.

        Args:
            method: Name of a method.
            budget: Tokens of evidence.
            wait: `first` counts reading the context, `further` only finding the evidence and
                answering.
        """
        columns = (self.values(method, budget, n) for n in ("seconds", "first_token_seconds"))
        prepared = self.figures["values"][method]["prepare_seconds"]
        return [
            None if token is None else found + token + (read if wait == "first" else 0.0)
            for read, found, token in zip(prepared, *columns, strict=True)
        ]

    def answered_by_all(self) -> list[bool]:
        """Whether a question was answered with every method and budget.

        One that was not is mostly about a long context, which would make the others look slow.
        """
        waits = (self.waits(m, budget, "first") for m in self.methods for budget in self.budgets)
        return [None not in row for row in zip(*waits, strict=True)]

    def typical_wait(self, method: str, budget: int, wait: Wait) -> float | None:
        """The median wait over the questions answered by all; None if there are none."""
        waits = zip(self.waits(method, budget, wait), self.answered_by_all(), strict=True)
        known = [seconds for seconds, by_all in waits if by_all and seconds is not None]
        return median(known) if known else None

    def peak_bytes(self, method: str) -> int | None:
        """The highest peak of all questions and budgets; None if there is none."""
        by_budget = self.figures["values"][method]["budgets"].values()
        peaks = [peak for column in by_budget for peak in column["peak_bytes"] if peak]
        return max(peaks, default=None)

    def ratio(self, method: str, other: str, measure: Measure | Wait) -> float | None:
        """Mean over mean at the middle budget, over the questions with both values."""
        if not {method, other} <= set(self.methods) or not self.count():
            return None
        columns = (
            self.waits(name, self.middle, measure)
            if measure in ("first", "further")
            else self.values(name, self.middle, measure)
            for name in (method, other)
        )
        pairs = [pair for pair in zip(*columns, strict=True) if None not in pair]
        below = sum(its for _, its in pairs)
        return sum(mine for mine, _ in pairs) / below if below else None

    def against(self, method: str, other: str, budget: int, measure: Measure) -> Estimate | None:
        """Mean paired difference over the questions with both values."""
        mine, its = (self.values(name, budget, measure) for name in (method, other))
        return difference(mine, its, self._groups, self._seed)

    def failures(self, method: str, budget: int) -> Counter[str]:
        """Why questions were not asked, with their number."""
        return Counter(reason for reason in self.values(method, budget, "failed") if reason)

    def tokens(self, method: str, budget: int) -> float:
        """Mean length of the evidence in tokens."""
        return fmean(self.values(method, budget, "tokens"))

    def prepare_seconds(self, method: str) -> float:
        """Median time of reading 1,000 tokens of a context."""
        seconds = self.figures["values"][method]["prepare_seconds"]
        tokens = self.figures["questions"]["context_tokens"]
        pairs = zip(seconds, tokens, strict=True)
        return median(1_000 * float(s) / max(int(n), 1) for s, n in pairs)

    def search_seconds(self, method: str) -> float:
        """Median time of finding the evidence at the middle budget."""
        return median(map(float, self.values(method, self.middle, "seconds")))

    @property
    def _groups(self) -> list[str]:
        groups: list[str] = self.figures["questions"]["group"]
        return groups

    @property
    def _seed(self) -> int:
        return int(self.figures["settings"]["seed"])

    def _any(self, method: str, measure: Measure) -> bool:
        by_budget = self.figures["values"][method]["budgets"].values()
        return any(value is not None for column in by_budget for value in column[measure])


def show_longcontext(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `longcontext`; write them, and the pictures `scores` and `needle`.

    Omits the picture of what was not measured.
    """
    page: list[Grid | str] = [*longcontext_tables(figures), STAR]
    asked, needles = figures["questions"]["task"], figures["needles"]
    if asked:
        page.append("![What is left of the answers against the budget](scores.svg)\n")
    if needles:
        page.append("![Needles found by length and depth](needle.svg)\n")
    show_run(figures, page, folder, "longcontext", "Long contexts", figures["remark"])
    if folder is not None and asked:
        draw_scores(figures, folder)
    if folder is not None and needles:
        draw_needles(figures, folder)


def longcontext_claims(figures: Figures) -> Iterator[Claim]:
    """Claims about settings, questions, values and needles of a run of `longcontext`."""
    summary = LongContextSummary(figures)

    def ratio(name: str, bound: float, method: str, other: str, measure: Measure | Wait) -> Claim:
        return Claim(name, "at least", bound, rounded(summary.ratio(method, other, measure)))

    at = f"@{summary.middle:,}"
    # The paper's hybrid keeps 97.7 to 99.3 % of the score (S3-Attention, table 1); its S3 alone
    # is below BM25.
    yield ratio(f"Score, hybrid {at} over full", 1, "hybrid", "full", "score")
    yield ratio(f"Answer contained, hybrid {at} over full", 1, "hybrid", "full", "contained")
    yield ratio(f"First token, full over hybrid {at}, first question", 4, "full", "hybrid", "first")
    yield ratio("The same, further questions", 10, "full", "hybrid", "further")
    for method, other in (("hybrid", "bm25"), ("hybrid", "dense"), ("s3", "bm25")):
        yield ratio(f"Answer recall, {method} over {other} {at}", 1, method, other, "recall")
    shares = [
        share
        for by_method in figures["needles"].values()
        if "hybrid" in by_method
        for share in by_method["hybrid"]["found"]
    ]
    measured = fmean(shares) if shares else None
    yield Claim("Needles in the evidence, hybrid", "at least", 0.99, rounded(measured))


def longcontext_tables(figures: Figures) -> Iterator[Grid]:
    """All tables of `longcontext`, the claims last."""
    summary = LongContextSummary(figures)
    if summary.count():
        yield from _question_tables(summary)
    if figures["needles"]:
        budget = figures["settings"]["needle_budget"]
        title = f"Needles in {budget:,} tokens of evidence"
        yield _needles(figures["needles"], "found", title)
        if has_answers(figures["needles"]):
            yield _needles(figures["needles"], "answered", "Needles in the answer")
    yield claims_table(figures["claims"])


def _question_tables(summary: LongContextSummary) -> Iterator[Grid]:
    measures = summary.measured()
    for measure in measures:
        title = f"All tasks: {MEASURES[measure]} (95 % interval; questions)"
        means = partial(_mean, summary, measure)
        yield by_budget(title, summary.budgets, summary.compared(measure), means)
    lead = next((name for name in summary.methods if name.startswith("hybrid")), "")
    for measure in measures if lead else ():
        what = f"{MEASURES[measure]} of {lead} less that of others"
        names = [name for name in summary.compared(measure) if name != lead]
        gains = partial(_gain, summary, lead, measure)
        yield by_budget(f"All tasks: {what}, paired (95 % interval)", summary.budgets, names, gains)
    for measure in measures:
        yield _by_task(summary, measure)
    yield _costs(summary)
    if any(summary.peak_bytes(name) for name in summary.methods):
        yield _waits(summary)
    failures = [
        [f"{name}{f' @{budget:,}' * (name != 'full')}", f"{count} of {summary.count()}", why]
        for name in summary.methods
        for budget in (summary.budgets if name != "full" else summary.budgets[:1])
        for why, count in summary.failures(name, budget).items()
    ]
    if failures:
        yield Grid("Not measured", ["method", "questions", "why"], failures)


def _by_task(summary: LongContextSummary, measure: Measure) -> Grid:
    budget, methods = summary.middle, summary.compared(measure)
    rows = []
    for task in summary.tasks:
        means = (summary.mean(name, budget, measure, task) for name in methods)
        shown = ("-" if mean is None else _value(mean.mean, measure) for mean in means)
        rows.append([task, str(summary.count(task)), *shown])
    title = f"Each task: {MEASURES[measure]} @{budget:,}"
    return Grid(title, ["task", "questions", *methods], rows)


def _costs(summary: LongContextSummary) -> Grid:
    rows = [
        [
            name,
            *(f"{summary.tokens(name, budget):,.0f}" for budget in summary.budgets),
            f"{summary.prepare_seconds(name):.3f}",
            f"{1e3 * summary.search_seconds(name):,.1f}",
        ]
        for name in summary.methods
    ]
    tokens = [f"tokens @{budget:,}" for budget in summary.budgets]
    title = (
        f"Evidence: mean tokens; medians of reading 1,000 tokens and finding @{summary.middle:,}"
    )
    return Grid(title, ["method", *tokens, "read, s/1k", "find, ms"], rows)


def _waits(summary: LongContextSummary) -> Grid:
    columns = [(wait, budget) for wait in WAITS for budget in summary.budgets]
    rows = [
        [
            name,
            *(digits(summary.typical_wait(name, budget, wait)) for wait, budget in columns),
            megabytes(summary.peak_bytes(name)),
        ]
        for name in summary.methods
    ]
    header = [f"{wait} @{budget:,}" for wait, budget in columns]
    count = sum(summary.answered_by_all())
    title = f"Seconds to the first token: medians of {count} questions that all methods answered"
    return Grid(title, ["method", *header, "peak MB"], rows)


def _needles(needles: Figures, kind: str, title: str) -> Grid:
    methods = list(next(iter(needles.values())))
    if kind == "found":
        methods = [method for method in methods if method != "full"]  # It leaves nothing out.
    rows = [
        [f"{int(length):,}", *(_needle_share(by_method[method], kind) for method in methods)]
        for length, by_method in needles.items()
    ]
    return Grid(f"{title}, share found", ["tokens", *methods], rows)


def _needle_share(cell: Figures, kind: str) -> str:
    shares = [value for value in cell[kind] if value is not None]
    return f"{fmean(shares):.2f}" if shares else str(cell["failed"] or "-")


def has_answers(needles: Figures) -> bool:
    """Whether the host answered any question about a needle."""
    return any(
        value is not None
        for by_method in needles.values()
        for cell in by_method.values()
        for value in cell["answered"]
    )


def _mean(summary: LongContextSummary, measure: Measure, name: str, budget: int) -> str:
    estimate = summary.mean(name, budget, measure)
    if estimate is None:
        return "-"
    mean, low, high = (_value(v, measure) for v in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} ({low}-{high}; {estimate.n})"


def _gain(summary: LongContextSummary, lead: str, measure: Measure, name: str, budget: int) -> str:
    return signed(summary.against(lead, name, budget, measure))


def _value(value: float, measure: Measure) -> str:
    """A share as `.123`, anything else with three digits."""
    return digits(value) if measure in ("nll", "kl") else share(value)


# From no needle to all; colour-blind readers and grey prints distinguish the ends.
_HEAT = ["#e8a06c", "#f8dcc5", "#d6e6f3", "#64a6d3", "#084f94"]
# The looks of `longcontext`: others muted, S3 in its colours.
_LONGCONTEXT_LOOKS = {"full": "ensemble", "truncation": "faiss-hnsw"}


def draw_scores(figures: Figures, folder: Path) -> None:
    """Write `scores`: every measure of the questions of `longcontext` against the budget."""
    summary = LongContextSummary(figures)
    measures = summary.measured()
    columns = min(len(measures), 2) or 1
    rows = -(-len(measures) // columns) or 1
    with figure((4.4 * columns + 0.4, 2.9 * rows + 0.35), folder / "scores") as drawn:
        for panel, measure in zip(panels(drawn, rows, columns), measures, strict=False):
            _draw_measure(panel, summary, measure)
        remove_rest(drawn, len(measures))
        tasks, host = summary.tasks, figures["settings"]["host"]
        kinds = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
        host = host.rstrip("/").rpartition("/")[2]
        title = f"{summary.count()} questions of {kinds}, host {host}"
        drawn.suptitle(title, x=0.012, ha="left", fontsize=9.5)
        drawn.tight_layout(rect=WHOLE, w_pad=0.8, h_pad=1.4)


def _draw_measure(panel: Any, summary: LongContextSummary, measure: Measure) -> None:
    ends: dict[str, tuple[float, float]] = {}
    texts = {}
    for name in summary.compared(measure):
        means = {budget: summary.mean(name, budget, measure) for budget in summary.budgets}
        known = {budget: mean for budget, mean in means.items() if mean is not None}
        if known:
            style = _LONGCONTEXT_LOOKS.get(name, name)
            _, last = draw_means(panel, style, known)
            ends[style] = summary.budgets[-1], last
            texts[style] = f"{name}  {last:.3f}"
    budget_axis(panel, summary.budgets)
    panel.set_title(MEASURES[measure], loc="left", fontsize=8.5)
    panel.set_xlabel("tokens of evidence (log scale)")
    name_points(panel, ends, texts, left=1.07, line=0.07)


def draw_needles(figures: Figures, folder: Path) -> None:
    """Write `needle`: the share of needles found by length and depth, a panel for each method.

    The first row of panels shows the evidence; if the host answers, the second its answers.
    """
    needles, depths = figures["needles"], figures["settings"]["depths"]
    budget = figures["settings"]["needle_budget"]
    # Finding everything in the whole text is trivial: `full` has a panel in the second row only.
    methods = sorted(next(iter(needles.values())), key=lambda method: method == "full")
    kinds = {"found": f"in {budget:,} tokens of evidence"}
    if has_answers(needles):
        kinds["answered"] = "in the answer"
    width = max(1.2, 0.27 * len(needles) + 0.3)
    size = (width * len(methods) + 1.1, 2.05 * len(kinds) + 0.55)
    with figure(size, folder / "needle") as drawn:
        panels = drawn.subplots(len(kinds), len(methods), squeeze=False, sharex=True, sharey=True)
        for row, (kind, where) in zip(panels, kinds.items(), strict=True):
            for panel, method in zip(row, methods, strict=True):
                if (kind, method) == ("found", "full"):
                    panel.set_axis_off()
                    continue
                columns = [by_method[method][kind] for by_method in needles.values()]
                _draw_heat(panel, list(zip(*columns, strict=True)))
                panel.set_xticks(range(len(needles)), [binary(int(n)) for n in needles])
                panel.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
                panel.tick_params(length=0, labelsize=6.5)
                panel.set_title(method, loc="left", fontsize=8)
            row[0].set_ylabel(f"{where}\ndepth")
        for panel in panels[-1]:
            panel.set_xlabel("tokens")
        drawn.suptitle("Share of the needles found, by length and depth", x=0.012, ha="left")
        drawn.tight_layout(rect=WHOLE, w_pad=0.5, h_pad=0.8)


def _draw_heat(panel: Any, cells: Sequence[Sequence[float | None]]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("found", _HEAT).with_extremes(bad="#eeeeee")
    shares = np.array([[np.nan if v is None else v for v in row] for row in cells], dtype=float)
    panel.grid(visible=False)
    panel.imshow(np.ma.masked_invalid(shares), cmap=colours, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(shares):
        text = "-" if math.isnan(value) else f"{value:.2g}".removeprefix("0") or "0"
        place = {"ha": "center", "va": "center", "color": "white" if value >= 0.6 else INK}
        panel.text(column, row, text, fontsize=6, **place)
    for spine in panel.spines.values():
        spine.set_visible(False)
