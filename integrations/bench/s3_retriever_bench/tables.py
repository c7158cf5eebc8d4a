"""The tables of all benchmarks, for the terminal and for Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING

from s3_retriever_bench.claims import done
from s3_retriever_bench.statistics import (
    MEASURES,
    WAITS,
    Estimate,
    Figures,
    LongContextSummary,
    Measure,
    QualitySummary,
)

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> Table:
        """For the terminal."""
        from rich.table import Table

        title = self.title or None
        table = Table(*self.header, title=title, title_justify="left", box=None, pad_edge=False)
        for column in table.columns:
            column.no_wrap = True
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """As a Markdown section; cells are not padded, so a new value changes a single line."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"### {self.title}\n\n{body}\n"


def digits(value: float | None) -> str:
    """Three digits, or all before the point; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def share(value: float) -> str:
    """A share as `.123`."""
    return f"{value:.3f}".removeprefix("0")


def signed(value: Estimate | None) -> str:
    """A difference with its interval, and a star if the interval excludes 0."""
    if value is None:
        return "-"
    shown = (f"{number:+.3f}" for number in (value.mean, value.low, value.high))
    mean, low, high = (re.sub(r"^([+-])0\.", r"\1.", number) for number in shown)
    return f"{mean} ({low}…{high}){'*' if value.decided() else ''}"


def by_budget(
    title: str,
    budgets: Sequence[int],
    names: Iterable[str],
    cell: Callable[[str, int], str],
    head: str = "@{:,}",
) -> Grid:
    """A row for each method, a column for each budget."""
    rows = [[name, *(cell(name, budget) for budget in budgets)] for name in names]
    return Grid(title, ["method", *map(head.format, budgets)], rows)


def megabytes(size: int | None) -> str:
    """Bytes in megabytes; a dash for None."""
    return "-" if size is None else f"{size / 1e6:,.0f}"


def claims_table(claims: Sequence[Figures]) -> Grid:
    """Every claim with its bound, what was measured, and whether it holds."""
    rows = [
        [
            claim["claim"],
            f"{claim['relation']} {claim['bound']:g} {claim['unit']}".strip(),
            "not measured" if claim["measured"] is None else f"{claim['measured']:.3g}",
            {True: "yes", False: "NO", None: "-"}[claim["holds"]],
        ]
        for claim in claims
    ]
    return Grid("Claims", ["claim", "bound", "measured", "holds"], rows)


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


def memory_tables(figures: Figures) -> Iterator[Grid]:
    """The table of `memory`."""
    rows = [
        [
            f"{row['tokens']:,}",
            f"{row['documents']:,}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
            f"{row['index_bytes'] / max(row['tokens'], 1):.1f}",
            f"{row['tokens_per_second']:,.0f}",
        ]
        for row in figures["rows"]
    ]
    yield Grid("", ["tokens", "documents", "peak MiB", "index bytes/token", "tokens/s"], rows)


def building_tables(figures: Figures) -> Iterator[Grid]:
    """The table of `build`."""
    rows = [
        [
            f"{row['workers']}",
            f"{row['tokens']:,}",
            f"{row['documents']:,}",
            f"{row['seconds']:,.1f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['driver_bytes'] / 2**20:,.0f}",
            f"{(row['worker_bytes'] or 0) / 2**20:,.0f}",
        ]
        for row in figures["rows"]
    ]
    header = ["workers", "tokens", "documents", "seconds", "tokens/s", "driver MiB", "worker MiB"]
    yield Grid("", header, rows)


def serving_tables(figures: Figures) -> Iterator[Grid]:
    """The table of `serve`."""
    latency = figures["latency_ms"]
    rows = [
        ["searches", f"{figures['searches']:,}"],
        ["searches/s", f"{figures['searches_per_second']:.1f}"],
        ["commits meanwhile", f"{figures['commits']:,}"],
        ["errors", f"{figures['errors']:,}"],
        ["results of no committed state", f"{figures['uncommitted']:,}"],
        ["ms under load, median", f"{latency['median']:.1f}"],
        ["ms under load, 95th percentile", f"{latency['p95']:.1f}"],
        ["ms of one client, median", f"{figures['http_ms']:.2f}"],
        ["ms in process, median", f"{figures['in_process_ms']:.2f}"],
        ["ms of HTTP, median of pairs", f"{figures['overhead_ms']:.2f}"],
        ["ms of GET /health, median", f"{figures['health_ms']:.2f}"],
        ["MiB of the server, first third", f"{figures['first_bytes'] / 2**20:,.0f}"],
        ["MiB of the server, last third", f"{figures['last_bytes'] / 2**20:,.0f}"],
    ]
    if "page_ms" in figures:
        what = f"ms to the page's first rows of {figures['page_spans']:,.0f} spans"
        rows.append([f"{what}, median", f"{figures['page_ms']:.0f}"])
        rows.append([f"{what}, worst", f"{figures['page_worst_ms']:.0f}"])
    title = (
        f"{figures['clients']} clients for {figures['seconds']:g} s, {figures['tokens']:,} tokens"
    )
    yield Grid(title, ["", "value"], rows)


def cluster_tables(figures: Figures) -> Iterator[Grid]:
    """The tables of `cluster`: searches by mode, then everything else."""
    title = f"{figures['tokens']:,} tokens in {figures['shards']} shards, {figures['cores']} cores"
    head = ["ms of a search", "one index", "sharded", "more, median of pairs", "host", "different"]
    searches = [
        [
            mode,
            *(f"{row[f'{name}_ms']:.1f}" for name in ("one", "sharded", "overhead", "reading")),
            f"{row['different']:,} of {figures['questions']:,}",
        ]
        for mode, row in figures["search"].items()
    ]
    yield Grid(title, head, searches)
    load, kills, memory = figures["load"], figures["kills"], figures["memory"]
    workers = ", ".join(f"{size / 2**20:,.0f}" for size in memory["worker_bytes"])
    rows = [
        [f"searches/s, {load['clients']} clients, one process", f"{load['one_process']:.1f}"],
        [f"searches/s, {load['clients']} clients, sharded", f"{load['sharded']:.1f}"],
        ["workers killed", f"{kills['kills']:,}"],
        ["searches meanwhile", f"{kills['searches']:,}"],
        ["of these wrong", f"{kills['wrong']:,}"],
        ["of these failed", f"{kills['errors']:,}"],
        ["seconds of the slowest", f"{kills['slowest_seconds']:.1f}"],
        ["MiB of this process, without files", f"{memory['process_bytes'] / 2**20:,.0f}"],
        ["MiB of each worker, without files", workers],
    ]
    yield Grid("", ["", "value"], rows)


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


def frameworks_tables(figures: Figures) -> Iterator[Grid]:
    """Lateness of the event loop, and the cost of the imports."""
    late, imports = [], []
    for name, row in figures["frameworks"].items():
        loop, imported = row["responsiveness"], row["import"]
        times = f"{loop['worst_ms']:.1f}", f"{loop['p99_ms']:.1f}", f"{loop['seconds']:.2f}"
        late.append([name, *times, "yes" if loop["equal"] else "NO"])
        seconds = f"{imported['best_seconds']:.2f}", f"{imported['median_seconds']:.2f}"
        imports.append([name, *seconds, ", ".join(imported["loaded"]) or "none"])
    yield Grid("", ["framework", "worst late ms", "p99 late ms", "round s", "as one by one"], late)
    yield Grid("", ["framework", "import best s", "median s", "slow libraries loaded"], imports)


def startup_tables(figures: Figures) -> Iterator[Grid]:
    """Seconds of fresh processes, and of searches over imports."""
    rows = [[name, f"{seconds:.2f}"] for name, seconds in figures["seconds"].items()]
    yield Grid("", ["fresh process", "median s"], rows)
    ratios = [[search, other, f"{ratio:.2f}"] for search, other, ratio in figures["ratios"]]
    yield Grid("", ["search", "over", "median ratio"], ratios)


def speed_tables(figures: Figures) -> Iterator[Grid]:
    """All tables of `speed`, the claims last."""
    sizes = figures["sizes"].values()
    header = ["tokens", *(f"{row['tokens']:,}" for row in sizes)]
    yield _indexing(figures["indexing"])
    rows = [[name, *map(show, sizes)] for name, show in _INDEX_ROWS.items()]
    yield Grid("Indexes", header, rows)
    for part, title in (
        ("rest_ms", "Search without the host"),
        ("whole_ms", "Whole search"),
        ("host_ms", "The host's part of a search"),
    ):
        names = next(iter(sizes))["searches"]
        rows = [[name, *(_time(row["searches"][name], part) for row in sizes)] for name in names]
        if part == "whole_ms":
            ratios = [f"{row['hybrid_over_dense']:.2f}" for row in sizes]
            rows.append(["hybrid over faiss-flat", *ratios])
        yield Grid(f"{title}, ms: median (95th percentile)", header, rows)
    yield claims_table(figures["claims"])


def skipped_searches(figures: Figures) -> dict[str, str]:
    """What `speed` did not search, and why."""
    return {
        f"{name} at {int(size):,} tokens": f"({search['skipped']})"
        for size, row in figures["sizes"].items()
        for name, search in row["searches"].items()
        if "skipped" in search
    }


def _indexing(indexing: Figures) -> Grid:
    rounds = indexing["rounds"]
    rows = []
    for name, key in (("host alone", "bare"), ("S3Index.add", "add")):
        row = [
            name,
            f"{indexing[f'{key}_tokens_per_second']:,.0f}",
            f"{median(times[f'{key}_seconds'] for times in rounds):,.2f}",
            f"{median(times[f'{key}_cpu_seconds'] for times in rounds):,.2f}",
        ]
        rows.append(row)
    ratios = f"{indexing['ratio']:.2f}", f"{indexing['cpu_ratio']:.2f}"
    rows.append(["host over add", "", *ratios])
    title = f"Indexing {indexing['tokens']:,} tokens, medians of {len(rounds)} rounds"
    return Grid(title, ["", "tokens/s", "seconds", "processor seconds"], rows)


_INDEX_ROWS: Mapping[str, Callable[[Figures], str]] = {
    "documents": lambda row: f"{row['documents']:,}",
    "sentences": lambda row: f"{row['sentences']:,}",
    "segments": lambda row: str(row["segments"]),
    "in repeated documents": lambda row: f"{row['repeated_share']:.0%}",
    "bytes/token": lambda row: f"{row['bytes_per_token']:.1f}",
    "opening, s": lambda row: f"{row['open_seconds']:.3f}",
    "opening, private MB": lambda row: megabytes(row["open_private_bytes"]),
    "chunks of the others": lambda row: f"{row['chunks']:,}",
}


def _time(search: Figures, part: str) -> str:
    if "skipped" in search:
        return "-"
    return f"{digits(search[part]['median'])} ({digits(search[part]['p95'])})"


def inference_tables(figures: Figures) -> Iterator[Grid]:
    """All tables of `inference`, the claims last."""
    sizes = figures["sizes"]
    header = ["tokens", *(f"{int(size):,}" for size in sizes)]
    for title, rows in _INFERENCE_TABLES.items():
        body = [
            [name, *(_cell(row.get(way), show) for row in sizes.values())]
            for name, way, show in rows
        ]
        if rows is _WAITS:
            for name in ("first", "further"):
                ratios = (_ratio(row, f"{name}_token_seconds") for row in sizes.values())
                body.append([f"full KV over S3, {name}", *ratios])
        yield Grid(title.format(memory=figures["settings"]["memory"]), header, body)
    yield claims_table(figures["claims"])


def _cell(result: Figures | None, show: Callable[[Figures], str]) -> str:
    if result is None:
        return "-"
    failed: str | None = result.get("failed")
    return failed or show(result)


def _ratio(row: Figures, key: str) -> str:
    full, ours = done(row, "full"), done(row, "s3")
    if full is None or ours is None or not ours[key]:
        return "-"
    return digits(full["first_token_seconds"] / ours[key])


_Row = tuple[str, str, Callable[[Figures], str]]
_WAITS: list[_Row] = [
    ("full KV", "full", lambda way: digits(way["first_token_seconds"])),
    (
        "S3, first question (with the scan)",
        "s3",
        lambda way: digits(way["first_token_seconds"]),
    ),
    ("S3, further question", "s3", lambda way: digits(way["further_token_seconds"])),
]
_INFERENCE_TABLES: Mapping[str, list[_Row]] = {
    "Time to first token, s": _WAITS,
    "Tokens/s after the first": [
        ("full KV", "full", lambda way: digits(way["tokens_per_second"])),
        ("S3", "s3", lambda way: digits(way["tokens_per_second"])),
    ],
    "Scan and evidence of S3": [
        ("tokens scanned", "s3", lambda way: f"{way['tokens']:,}"),
        ("scan, s", "s3", lambda way: digits(way["scan_seconds"])),
        ("scan, ms/token", "s3", lambda way: f"{1e3 * way['scan_seconds'] / way['tokens']:.3f}"),
        ("retrieval, s", "s3", lambda way: f"{way['retrieval_seconds']:.3f}"),
        ("longest prompt, tokens", "s3", lambda way: f"{way['prompt_tokens']:,}"),
    ],
    "Peak memory, MB ({memory})": [
        ("full KV", "full", lambda way: megabytes(way["peak_bytes"])),
        ("S3", "s3", lambda way: megabytes(way["peak_bytes"])),
        ("model loaded, before full KV", "full", lambda way: megabytes(way["loaded_bytes"])),
        ("model loaded, before S3", "s3", lambda way: megabytes(way["loaded_bytes"])),
        ("KV cache alone, full KV", "full", lambda way: megabytes(way["cache_bytes"])),
    ],
}


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
    lead = next((name for name in summary.methods if name.startswith("hybrid")), None)
    if lead is not None:
        yield from _gains(summary, lead)
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


def _gains(summary: LongContextSummary, lead: str) -> Iterator[Grid]:
    for measure in summary.measured():
        what = f"{MEASURES[measure]} of {lead} less that of others"
        names = [name for name in summary.compared(measure) if name != lead]
        gains = partial(_lead_gain, summary, lead, measure)
        yield by_budget(f"All tasks: {what}, paired (95 % interval)", summary.budgets, names, gains)


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


def _lead_gain(
    summary: LongContextSummary, lead: str, measure: Measure, name: str, budget: int
) -> str:
    return signed(summary.against(lead, name, budget, measure))


def _value(value: float, measure: Measure) -> str:
    """A share as `.123`, anything else with three digits."""
    return digits(value) if measure in ("nll", "kl") else share(value)
