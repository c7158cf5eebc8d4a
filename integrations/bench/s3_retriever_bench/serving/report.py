"""The tables of `serve`, `cluster`, `build` and `frameworks`."""

from __future__ import annotations

from collections.abc import Iterator

from s3_retriever_bench.shared.report import Grid
from s3_retriever_bench.shared.statistics import Figures


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
