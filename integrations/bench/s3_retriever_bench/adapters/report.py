"""The tables of `adapt` and `recovery`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev

from s3_retriever_bench.shared.report import Grid, digits, share, show_run
from s3_retriever_bench.shared.statistics import Figures

_KINDS = ("harmful", "unsafe", "safe")


def adapt_tables(figures: Figures) -> Iterator[Grid]:
    """What was refused by start, and what it cost; the losses of training, step by step."""
    runs = {start: list(seeds.values()) for start, seeds in figures["runs"].items()}
    rows = [
        [
            start,
            *(_spread([fmean(part["refused"][kind]) for part in parts], share) for kind in _KINDS),
            _spread([part["perplexity"] for part in parts], "{:.2f}".format),
            _spread([part["likelihood"] for part in parts], "{:.3f}".format),
        ]
        for start, parts in runs.items()
    ]
    seeds = max(map(len, runs.values()))
    title = f"Share refused after training, seeds: {seeds}; mean (standard deviation)"
    yield Grid(title, ["start", *_KINDS, "perplexity", "likelihood"], rows)
    trained = {start: parts for start, parts in runs.items() if parts[0]["losses"]}
    rows = [
        [
            start,
            f"{parts[0]['parameters']:,}",
            digits(fmean(part["start_seconds"] for part in parts)),
            digits(fmean(part["train_seconds"] for part in parts)),
        ]
        for start, parts in trained.items()
    ]
    yield Grid(
        "Cost", ["start", "trained parameters", "seconds to start", "seconds to train"], rows
    )
    steps = _steps(len(next(iter(trained.values()))[0]["losses"]))
    rows = [
        [start, *(f"{fmean(fmean(part['losses'][a:b]) for part in parts):.3f}" for a, b in steps)]
        for start, parts in trained.items()
    ]
    header = ["start", *(f"to step {last}" for _, last in steps)]
    yield Grid("Training loss, mean over the steps since the column before", header, rows)
    started = [p["basis"] for parts in runs.values() for p in parts if p["basis"]]
    if started:
        yield _features(started)


def starting_table(figures: Figures) -> Grid:
    """How long each start takes."""
    rows = [[start, digits(seconds)] for start, seconds in figures["seconds"].items()]
    return Grid("Starts", ["start", "seconds to start"], rows)


def recovery_tables(figures: Figures) -> Iterator[Grid]:
    """What of the true subspace is missed."""
    rows = [
        [f"SAE of {p['steps']:,} steps", share(1 - p["unexplained"]), share(p["error"])]
        for p in figures["points"]
    ]
    others = {**figures["direct"], "random subspace": figures["chance"]}
    rows += [[name, "-", share(error)] for name, error in others.items()]
    title = (
        f"{figures['features']} features on {figures['width']} neurons, {figures['raised']} raised"
    )
    yield Grid(title, ["found by", "variance explained", "share missed"], rows)


def _features(started: Sequence[Figures]) -> Grid:
    rows = [
        [str(index), f"{difference:+.2f}", " ".join(token.replace("|", "/") for token in tokens)]
        for index, difference, tokens in started[0]["features"]
    ]
    kept = fmean(basis["update_share"] for basis in started)
    title = (
        f"SAILS: the first features of a basis of rank {started[0]['rank']}, in which "
        f"{kept:.0%} of the trained update lies"
    )
    return Grid(title, ["feature", "wanted - unwanted", "fires on"], rows)


def _spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    if len(values) < 2:
        return show(values[0])
    return f"{show(fmean(values))} ({show(stdev(values))})"


def _steps(count: int) -> list[tuple[int, int]]:
    """Up to four stretches of the steps, as where each begins and ends."""
    ends = sorted({round(count * quarter / 4) for quarter in range(1, 5)} - {0})
    return list(zip([0, *ends], ends, strict=False))


def show_adapt(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `adapt`, and write them without the answers, which the parts keep."""
    runs = {
        start: {
            seed: {k: v for k, v in part.items() if k != "answers"} for seed, part in seeds.items()
        }
        for start, seeds in figures["runs"].items()
    }
    title = "Adapters that learn to refuse"
    show_run({**figures, "runs": runs}, adapt_tables(figures), folder, "adapt", title)
