"""The tables and pictures of `quality`, `relevance` and `retrieval`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from statistics import fmean, median
from typing import Any

from s3_retriever_bench.shared.drawing import (
    WHOLE,
    budget_axis,
    draw_means,
    figure,
    look,
    name_points,
    panels,
    remove_rest,
)
from s3_retriever_bench.shared.report import STAR, Grid, by_budget, share, show_run, signed
from s3_retriever_bench.shared.statistics import Estimate, Figures, difference, estimate


@dataclass(frozen=True)
class QualitySummary:
    """Means, intervals and differences of all methods on one set.

    Attributes:
        name: Name of the set.
        set: `groups` (one per question) and `values` by method, as `measure` returns them.
        budgets: Token budgets, ascending.
        seed: Seed of the resampling.
    """

    name: str
    set: Mapping[str, Any]
    budgets: Sequence[int]
    seed: int

    @property
    def methods(self) -> Mapping[str, Mapping[str, Any]]:
        """Values by method."""
        values: Mapping[str, Mapping[str, Any]] = self.set["values"]
        return values

    @property
    def questions(self) -> int:
        """Number of questions."""
        return len(self.set["groups"])

    @property
    def middle(self) -> int:
        """The budget to show where there is room for one."""
        return self.budgets[len(self.budgets) // 2]

    def evidence(self, method: str, budget: int) -> Estimate:
        """Evidence recall."""
        recall = self._estimate(self.methods[method]["evidence"][str(budget)])
        assert recall is not None
        return recall

    def all_evidence(self, method: str, budget: int) -> Estimate | None:
        """Share of questions whose evidence was found completely."""
        recalls = self.methods[method]["evidence"][str(budget)]
        return self._estimate([float(recall == 1) for recall in recalls])

    def answer(self, method: str, budget: int) -> Estimate | None:
        """Answer-string recall; None if no question has such a string."""
        return self._estimate(self.methods[method]["answer"][str(budget)])

    def ranking(self, method: str, metric: str) -> Estimate | None:
        """`ndcg` or `mrr`."""
        return self._estimate(self.methods[method][metric])

    def search_ms(self, method: str) -> float:
        """Median time of a search in milliseconds."""
        return median(map(float, self.methods[method]["search_ms"]))

    @cached_property
    def bar(self) -> str | None:
        """The strongest ensemble, by evidence recall averaged over the budgets."""
        return self._strongest(name for name in self.methods if name.startswith("ensemble-"))

    @cached_property
    def single(self) -> str | None:
        """The strongest of BM25 and dense retrieval, by the same measure."""
        return self._strongest(n for n in self.methods if n.startswith(("bm25", "dense-")))

    def against(self, method: str, other: str, budget: int) -> Estimate:
        """Mean paired difference in evidence recall, with its interval."""
        mine, its = (self.methods[name]["evidence"][str(budget)] for name in (method, other))
        gain = difference(mine, its, self.set["groups"], self.seed)
        assert gain is not None
        return gain

    def comparisons(self) -> list[tuple[str, str]]:
        """Every method against `bar`; and `s3`, which is not an ensemble, against `single`."""
        pairs = [(name, self.bar) for name in self.methods if name != self.bar]
        if "s3" in self.methods:
            pairs.append(("s3", self.single))
        return [(name, other) for name, other in pairs if other is not None]

    def figures(self) -> dict[str, Any]:
        """JSON values of everything above."""
        return {
            "bar": self.bar,
            "single": self.single,
            "methods": {name: self._method(name) for name in self.methods},
            "differences": [
                {
                    "method": method,
                    "from": other,
                    "evidence": {
                        str(budget): self.against(method, other, budget).figures()
                        for budget in self.budgets
                    },
                }
                for method, other in self.comparisons()
            ],
        }

    def _method(self, name: str) -> dict[str, Any]:
        values = self.methods[name]
        return {
            "budgets": {
                str(budget): {
                    "evidence": _figures(self.evidence(name, budget)),
                    "all_evidence": _figures(self.all_evidence(name, budget)),
                    "answer": _figures(self.answer(name, budget)),
                }
                for budget in self.budgets
            },
            "ndcg@10": _figures(self.ranking(name, "ndcg")),
            "mrr": _figures(self.ranking(name, "mrr")),
            "search_ms": self.search_ms(name),
            "prepare_seconds_per_1k_tokens": values["prepare_seconds_per_1k_tokens"],
            "bytes_per_token": values["bytes_per_token"],
        }

    def _estimate(self, values: Sequence[float | None]) -> Estimate | None:
        return estimate(values, self.set["groups"], self.seed)

    def _strongest(self, names: Iterable[str]) -> str | None:
        def recall(name: str) -> float:
            return fmean(chain.from_iterable(self.methods[name]["evidence"].values()))

        return max(names, key=recall, default=None)


def quality_summaries(figures: Mapping[str, Any]) -> Iterator[QualitySummary]:
    """The summary of each set of a run."""
    settings = figures["settings"]
    for name, values in figures["sets"].items():
        yield QualitySummary(name, values, settings["budgets"], settings["seed"])


def _figures(value: Estimate | None) -> dict[str, float] | None:
    return None if value is None else value.figures()


def show_quality(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `quality`; write them, and the pictures `recall` and `cost`."""
    summaries = list(quality_summaries(figures))
    page: list[Grid | str] = []
    for summary in summaries:
        page += [f"## {summary.name}\n", *quality_tables(summary)]
    title = "Evidence retrieval under a token budget"
    show_run(figures, [*page, STAR], folder, "quality", title)
    if folder is not None:
        draw_quality(summaries, folder)


def show_retrieval(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `retrieval`, and write them."""
    page: list[Grid | str] = [*retrieval_tables(figures), STAR]
    show_run(figures, page, folder, "retrieval", "Documents ranked for queries")


def retrieval_tables(figures: Figures) -> Iterator[Grid]:
    """For each collection of `retrieval`, the measures of every method."""
    for name, its in figures["sets"].items():
        measures = list(next(iter(its["means"].values())))
        rows = []
        for method, means in its["means"].items():
            gain = its["gains"].get(method)
            cells = [share(means[measure]["mean"]) for measure in measures]
            rows.append([method, *cells, signed(Estimate(**gain["estimate"])) if gain else "-"])
        baseline = next((gain["baseline"] for gain in its["gains"].values()), "the best baseline")
        title = f"{name}: {its['documents']:,} documents, {len(its['queries']):,} queries"
        yield Grid(title, ["method", *measures, f"nDCG@10 less that of {baseline}"], rows)


def quality_tables(summary: QualitySummary) -> Iterator[Grid]:
    """All tables of one set of `quality`."""
    title = f"{summary.name}: evidence recall (95 % interval), {summary.questions} questions"
    yield by_budget(
        title, summary.budgets, summary.methods, lambda *at: _interval(summary.evidence(*at)), "@{}"
    )
    yield _rankings(summary)
    answers = partial(_answer, summary)
    if any(answers(name, summary.middle) != "-" for name in summary.methods):
        title = f"{summary.name}: questions whose answer is in the evidence, word for word"
        yield by_budget(title, summary.budgets, summary.methods, answers, "@{}")
    rows = [
        [
            name,
            f"{values['prepare_seconds_per_1k_tokens']:.3f}",
            f"{summary.search_ms(name):.1f}",
            f"{values['bytes_per_token']:.0f}",
        ]
        for name, values in summary.methods.items()
    ]
    header = ["method", "prepare, s/1k tokens", "search, ms (median)", "bytes/token"]
    yield Grid(f"{summary.name}: cost", header, rows)
    comparisons = summary.comparisons()
    for other in dict.fromkeys(other for _, other in comparisons):
        title = f"{summary.name}: evidence recall less that of {other}, paired (95 % interval)"
        names = [name for name, its in comparisons if its == other]
        against = partial(_quality_gain, summary, other)
        yield by_budget(title, summary.budgets, names, against, "@{}")


def _answer(summary: QualitySummary, name: str, budget: int) -> str:
    contained = summary.answer(name, budget)
    return "-" if contained is None else _interval(contained)


def _quality_gain(summary: QualitySummary, other: str, name: str, budget: int) -> str:
    return signed(summary.against(name, other, budget))


def _rankings(summary: QualitySummary) -> Grid:
    budget = summary.middle
    rows = []
    for name in summary.methods:
        values = (
            summary.all_evidence(name, budget),
            summary.answer(name, budget),
            summary.ranking(name, "ndcg"),
            summary.ranking(name, "mrr"),
        )
        rows.append([name, *("-" if value is None else share(value.mean) for value in values)])
    header = ["method", f"all evidence @{budget}", f"answer @{budget}", "nDCG@10", "MRR"]
    return Grid(f"{summary.name}: whole questions and rankings", header, rows)


def _interval(value: Estimate) -> str:
    return f"{share(value.mean)} ({share(value.low)}-{share(value.high)})"


def relevance_tables(figures: Figures) -> Iterator[Grid]:
    """The table of `relevance`, a row for each set and way of asking."""
    head = ["set", "questions", "number", "tokens", "without floor", "nothing", "best relevance"]
    head += ["recall", "without floor"]
    rows = []
    for name, measured in figures["sets"].items():
        for way, row in measured.items():
            recalls = [row.get("recall"), row.get("recall_without_floor")]
            rows.append(
                [
                    name,
                    way,
                    f"{row['questions']:,}",
                    f"{row['tokens']:.0f}",
                    f"{row['tokens_without_floor']:.0f}",
                    f"{row['nothing']:.0%}",
                    f"{row['median_best_relevance']:.2f}",
                    *("" if recall is None else f"{recall:.3f}" for recall in recalls),
                ]
            )
    yield Grid("", head, rows)


def draw_quality(summaries: Sequence[QualitySummary], folder: Path) -> None:
    """Write `recall` (recall against budget) and `cost` (recall against search time)."""
    columns = min(len(summaries), 3)
    rows = -(-len(summaries) // columns)
    with figure((3.9 * columns, 2.75 * rows + 0.55), folder / "recall") as drawn:
        for panel, summary in zip(panels(drawn, rows, columns), summaries, strict=False):
            _draw_recall(panel, summary)
        remove_rest(drawn, len(summaries))
        middle = summaries[0].middle
        best = Counter(max(s.methods, key=lambda m: s.evidence(m, middle).mean) for s in summaries)
        wins = ", ".join(f"{name} {count}" for name, count in best.most_common())
        title = f"Evidence found within a token budget. Sets where most was found at {middle}: "
        drawn.suptitle(title + wins, x=0.012, ha="left", fontsize=10)
        drawn.tight_layout(rect=WHOLE, w_pad=0.6, h_pad=1.6)
    with figure((7.2, 4.4), folder / "cost") as drawn:
        _draw_cost(drawn, summaries)


def _draw_recall(panel: Any, summary: QualitySummary) -> None:
    ends = {}
    for name in summary.methods:
        means = {budget: summary.evidence(name, budget) for budget in summary.budgets}
        ends[name] = draw_means(panel, name, means, plain=True)
    budget_axis(panel, summary.budgets)
    panel.set_title(f"{summary.name} ({summary.questions} questions)", loc="left", fontsize=8.5)
    panel.set_xlabel("budget, tokens")
    panel.set_ylabel("evidence recall")
    name_points(panel, ends, {name: name for name in ends}, left=1.09, line=0.062, font=6.6)


def _draw_cost(drawn: Any, summaries: Sequence[QualitySummary]) -> None:
    axes = drawn.subplots()
    shared = [name for name in summaries[0].methods if all(name in s.methods for s in summaries)]
    points = {
        name: (
            fmean(summary.search_ms(name) for summary in summaries),
            fmean(summary.evidence(name, summary.middle).mean for summary in summaries),
        )
        for name in shared
    }
    for name, (milliseconds, recall) in points.items():
        style = look(name)
        axes.plot(
            milliseconds,
            recall,
            style.marker,
            color=style.colour,
            markersize=8 if style.strong else 6,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=3,
        )
    axes.set_xscale("log")
    axes.margins(x=0.08, y=0.08)
    axes.grid(visible=True, which="major")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("median time of a search, ms (question included; log scale)")
    axes.set_ylabel(f"evidence recall at {summaries[0].middle:,} tokens")
    texts = {name: f"{name}  {y:.3f}".replace("0.", ".") for name, (_, y) in points.items()}
    name_points(axes, points, texts, left=1.03, line=0.05)
    most = max(points, key=lambda name: points[name][1])
    fastest = min(points, key=lambda name: points[name][0])
    sets = f"{len(summaries)} {'set' if len(summaries) == 1 else 'sets'}"
    drawn.suptitle(
        f"Recall and search time, mean of {sets}. Most found: {most}. Fastest: {fastest}.",
        x=0.015,
        ha="left",
        fontsize=9.5,
    )
    drawn.tight_layout(rect=WHOLE)
